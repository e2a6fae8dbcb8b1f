"""Progress as JSON lines: what one process writes, another reads."""

import io
import json

from nbdt.progress import JsonProgress, ProgressEvent, read_progress


def test_events_are_read_as_they_were_written_and_other_lines_are_skipped():
    stream = io.StringIO()
    writer = JsonProgress(stream)
    assert list(writer(range(3), 3, "images")) == [0, 1, 2]
    stream.write("a library's own line\n[1]\n" + '{"event": "other", "text": ""}\n')
    writer.say("two\nlines")
    writer.fail("it broke")
    lines = stream.getvalue().splitlines()
    assert set(json.loads(lines[0])) == {"event", "text", "done", "count"}
    *progress, message, error = read_progress(lines)
    assert {(event.event, event.text, event.count) for event in progress} == {
        ("progress", "images", 3)
    }
    assert (progress[0].done, progress[-1].done) == (0, 3)
    assert str(progress[-1]) == "images: 3 of 3"
    assert (message, error) == (
        ProgressEvent("message", "two\nlines"),
        ProgressEvent("error", "it broke"),
    )


def test_many_items_do_not_flood_the_pipe():
    stream = io.StringIO()
    list(JsonProgress(stream)(range(10_000), None, "images"))
    assert len(stream.getvalue().splitlines()) < 100
