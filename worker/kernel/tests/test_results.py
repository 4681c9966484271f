"""What a cell answers: the value of its last expression, figures, displays."""

import base64

from session import Case


def is_png(content):
    return base64.b64decode(content, validate=True).startswith(b"\x89PNG")


class Results(Case):
    def test_a_numpy_scalar_shows_as_its_number(self):
        self.assertEqual(self.succeeds("import numpy as np\nnp.arange(3).sum()").text, "3")
        self.assertEqual(self.succeeds("np.float64(1.5)").text, "1.5")
        self.assertEqual(self.succeeds("await __import__('asyncio').sleep(0, np.int64(7))").text, "7")

    def test_the_last_expression_is_the_result(self):
        self.assertEqual(self.succeeds("x = 6\nx * 7").result, {"text/plain": "42"})

    def test_underscore_is_the_last_result(self):
        self.assertEqual(self.succeeds("_").text, "''")
        self.succeeds("6 * 7")
        self.assertEqual(self.succeeds("_ + _2").text, "84")

    def test_nothing_is_the_result_of_nothing(self):
        for code in ("", "\n \n", "# only a comment", "x = 1", "None", "print(end='')", "1;"):
            cell = self.succeeds(code)
            self.assertEqual((cell.result, cell.displays, cell.stdout), (None, [], ""), code)

    def test_not_a_number_is_its_repr(self):
        self.assertEqual(self.succeeds("float('nan')").text, "nan")

    def test_a_dict_is_its_repr(self):
        self.assertEqual(self.succeeds("{'sin_pi': 1.2}").text, "{'sin_pi': 1.2}")

    def test_a_long_list_of_strings_has_a_line_for_each(self):
        names = self.succeeds("[f'package-{n}' for n in range(200)]").text.strip("[]").split(",\n ")
        self.assertEqual(names, [f"'package-{n}'" for n in range(200)])

    def test_the_list_of_installed_packages_has_a_line_for_each(self):
        cell = self.succeeds("import pkg_resources\n[d.project_name for d in pkg_resources.working_set]")
        names = [name.strip(" '") for name in cell.text.strip("[]").split(",\n")]
        self.assertLessEqual({"numpy", "pandas", "matplotlib"}, set(names))

    def test_a_data_frame_is_text_and_a_table(self):
        cell = self.succeeds("import pandas\npandas.DataFrame({'a': [1, 2]})")
        self.assertEqual(cell.text, "   a\n0  1\n1  2")
        self.assertIn("<table", cell.result["text/html"])

    def test_characters_of_all_planes_survive(self):
        self.assertEqual(self.succeeds("'ž' + '\U0001f600'").text, "'ž\U0001f600'")

    def test_half_characters_are_shown_escaped(self):
        self.assertEqual(self.succeeds("'\\ud800'").text, "'\\ud800'")
        cell = self.succeeds("display({'text/plain': '\\ud800'}, raw=True)")
        self.assertEqual(cell.displays, [{"text/plain": "\\ud800"}])
        self.assertEqual(self.fails("raise ValueError('\\ud800')")["message"], "\\ud800")

    def test_a_repr_that_fails_is_told_on_stderr(self):
        cell = self.succeeds("class Bad:\n    def __repr__(self): 1 / 0\nBad()")
        self.assertIn("ZeroDivisionError", cell.stderr)
        self.assertIn("4300 digits", self.succeeds("10 ** 5000").stderr)

    def test_odd_mime_bundles_do_no_harm(self):
        self.succeeds(
            "class Text(str):\n    def replace(self, *_): return 7\n    __len__ = replace\n"
            "class Odd:\n    def _repr_mimebundle_(self, **_):\n"
            "        return {1: 'x', ('t',): 'y', 'a/b': Text('z'), 'c/d': {1, 2}, 'e/f': [1]}\n"
        )
        result = self.succeeds("Odd()").result
        result.pop("text/plain")
        self.assertEqual(result, {"a/b": "z", "e/f": "[1]"})

    def test_a_long_text_is_cut(self):
        # The worker cuts it, and sees by this that there is something to cut.
        cell = self.succeeds("class Long:\n    def __repr__(self): return 'x' * (5 << 20)\nLong()")
        self.assertEqual(len(cell.text), (4 << 20) + 1)

    def test_no_more_and_no_longer_mime_types_than_the_worker_takes(self):
        code = "display({'m' * n: '' for n in range(1, 300)} | {'\\ud800' * 50: ''}, raw=True)"
        (shown,) = self.succeeds(code).displays
        self.assertEqual(list(shown), ["m" * n for n in range(1, 65)])
        (shown,) = self.succeeds("display({'m' * 255: '', 'm' * 256: '', '\\ud800' * 50: ''}, raw=True)").displays
        self.assertEqual(list(shown), ["m" * 255])

    def test_more_than_a_frame_holds_is_refused_by_name(self):
        error = self.fails("from IPython.display import Image\nImage(bytes(30 << 20), format='png')")
        self.assertEqual(error["name"], "OutputTooLong")
        cell = self.succeeds("display(Image(bytes(30 << 20), format='png'))")
        self.assertIn("OutputTooLong", cell.displays[0]["text/plain"])
        self.assertEqual(self.succeeds("1").text, "1")


class Displays(Case):
    def test_html_is_displayed_with_its_text(self):
        cell = self.succeeds("from IPython.display import HTML\ndisplay(HTML('<b>x</b>'))")
        self.assertEqual(cell.displays[0]["text/html"], "<b>x</b>")
        self.assertIn("text/plain", cell.displays[0])

    def test_a_drawing_in_svg_keeps_its_lines(self):
        cell = self.succeeds("display({'image/svg+xml': '<svg\\nwidth=\"1\"></svg>'}, raw=True)")
        self.assertEqual(cell.displays, [{"image/svg+xml": '<svg\nwidth="1"></svg>'}])

    def test_an_image_in_lines_of_base64_is_joined(self):
        cell = self.succeeds("display({'image/png': 'aaaa\\nbbbb\\n'}, raw=True)")
        self.assertEqual(cell.displays, [{"image/png": "aaaabbbb"}])

    def test_json_is_displayed_as_its_text(self):
        cell = self.succeeds("from IPython.display import JSON\nJSON({'a': 1})")
        self.assertEqual(cell.result["application/json"], '{"a": 1}')

    def test_displays_keep_their_order(self):
        cell = self.succeeds("for n in range(3): display(n)\n'end'")
        self.assertEqual([shown["text/plain"] for shown in cell.displays], ["0", "1", "2"])
        self.assertEqual(cell.text, "'end'")

    def test_displays_of_threads_arrive_whole(self):
        cell = self.succeeds(
            "import threading\n"
            "def show():\n    for _ in range(50): display({'text/plain': 'x' * 100_000}, raw=True)\n"
            "threads = [threading.Thread(target=show) for _ in range(3)]\n"
            "for thread in threads: thread.start()\n"
            "show()\nfor thread in threads: thread.join()"
        )
        self.assertEqual(cell.displays, [{"text/plain": "x" * 100_000}] * 200)


class Figures(Case):
    def test_a_plot_shown_is_one_image(self):
        cell = self.succeeds("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
        (shown,) = cell.displays
        self.assertTrue(is_png(shown["image/png"]))
        self.assertIsNone(cell.result)

    def test_a_plot_that_is_not_shown_is_shown_at_the_end(self):
        cell = self.succeeds("import matplotlib.pyplot as plt\nplt.plot([1, 2])")
        (shown,) = cell.displays
        self.assertTrue(is_png(shown["image/png"]))
        self.assertIn("Line2D", cell.text)

    def test_several_figures_are_several_images(self):
        cell = self.succeeds(
            "import matplotlib.pyplot as plt\nfor n in range(3):\n    plt.figure()\n    plt.plot([n])"
        )
        self.assertEqual([is_png(shown["image/png"]) for shown in cell.displays], [True] * 3)
        self.assertEqual(self.succeeds("plt.get_fignums()").text, "[]")

    def test_a_figure_as_last_expression_is_an_image(self):
        cell = self.succeeds(
            "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.subplots().plot([1])\nfigure"
        )
        self.assertTrue(is_png(cell.result["image/png"]))

    def test_a_plot_before_an_error_is_shown(self):
        cell = self.run_cell("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")
        self.assertEqual(cell.error["name"], "ZeroDivisionError")
        self.assertEqual(len(cell.displays), 1)

    def test_a_figure_that_cannot_be_drawn_is_told_on_stderr(self):
        cell = self.succeeds("import matplotlib.pyplot as plt\nplt.title('$\\\\bad{$')\nNone")
        self.assertIn("ValueError", cell.stderr)

    def test_a_saved_figure_is_a_file(self):
        self.succeeds("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.savefig('plot.png')")
        self.assertEqual(self.succeeds("open('plot.png', 'rb').read(4)").text, r"b'\x89PNG'")
