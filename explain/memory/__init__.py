"""``nbdt memory``: the labelled photographs that a model's last layer is fitted on."""
