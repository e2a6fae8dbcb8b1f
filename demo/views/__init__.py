"""The parts of the page that show one photograph: answer, tree, steps, node."""
