"""The codec, against samples that the worker's is tested against too."""

import io
import json
import pathlib
import unittest

import session  # noqa: F401  makes the kernel's modules known
import hearth_frames

GOLDEN = json.loads((pathlib.Path(__file__).parent / "frames.golden.json").read_text())


class Frames(unittest.TestCase):
    def test_what_the_worker_sends_is_read(self):
        for sample in GOLDEN["to_kernel"]:
            stream = io.BytesIO(bytes.fromhex(sample["hex"]))
            self.assertEqual(hearth_frames.read(stream), sample["frame"])
            self.assertIsNone(hearth_frames.read(stream))

    def test_what_the_kernel_sends_is_what_it_always_was(self):
        for sample in GOLDEN["from_kernel"]:
            self.assertEqual(hearth_frames.encode(sample["frame"]).hex(), sample["hex"])

    def test_half_characters_become_text_that_utf8_can_hold(self):
        body = hearth_frames.encode({"text": "a\ud800\\ud800\U0001f600"})[4:]
        self.assertEqual(json.loads(body.decode())["text"], "a\\ud800\\ud800\U0001f600")

    def test_a_frame_above_the_limit_is_refused_on_both_sides(self):
        with self.assertRaises(hearth_frames.TooLong):
            hearth_frames.encode({"text": "x" * hearth_frames.LIMIT})
        with self.assertRaises(hearth_frames.TooLong):
            hearth_frames.read(io.BytesIO(b"\xff" * 8))

    def test_a_frame_that_breaks_off_is_the_end(self):
        whole = hearth_frames.encode({"type": "ready"})
        for length in range(len(whole)):
            self.assertIsNone(hearth_frames.read(io.BytesIO(whole[:length])))
