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

    def test_a_repr_of_the_last_value_that_fails_is_a_failure(self):
        error = self.fails("class Bad:\n    def __repr__(self): 1 / 0\nBad()")
        self.assertEqual(error["name"], "ZeroDivisionError")
        self.assertIn("def __repr__(self): 1 / 0", error["traceback"])
        self.assertEqual(self.fails("10 ** 5000")["name"], "ValueError")
        self.assertEqual(self.fails("await __import__('asyncio').sleep(0, Bad())")["name"], "ZeroDivisionError")
        self.assertEqual(self.succeeds("1").text, "1")

    def test_one_form_that_fails_beside_others_is_told_on_stderr(self):
        cell = self.succeeds("class Odd:\n    def _repr_html_(self): 1 / 0\n    def __repr__(self): return 'odd'\nOdd()")
        self.assertEqual(cell.result, {"text/plain": "odd"})
        self.assertIn("ZeroDivisionError", cell.stderr)

    def test_numpy_scalars_print_alike_wherever_code_runs(self):
        self.succeeds(
            "import concurrent.futures as futures, subprocess, sys\n"
            "SHOW = 'import numpy as np; print([np.float64(1.5), np.int64(2)], str(np.float32(0.5)))'\n"
            "def show(_=0):\n"
            "    import contextlib, io\n"
            "    with contextlib.redirect_stdout(io.StringIO()) as said: exec(SHOW, {})\n"
            "    return said.getvalue()"
        )
        code = (
            "with futures.ThreadPoolExecutor(1) as threads, futures.ProcessPoolExecutor(1) as processes:\n"
            "    said = {show(), *threads.map(show, [0]), *processes.map(show, [0])}\n"
            "said | {subprocess.run([sys.executable, '-c', SHOW], capture_output=True, text=True).stdout}"
        )
        self.assertEqual(self.succeeds(code).text, r"{'[np.float64(1.5), np.int64(2)] 0.5\n'}")

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


class Replaced(Case):
    """`clear_output` and `update_display`. What becomes of the frames is the worker's to test."""

    def kinds(self, cell):
        return [frame["type"] for frame in cell.said]

    def test_clearing_comes_after_what_was_shown_before_and_before_the_rest(self):
        cell = self.succeeds(
            "from IPython.display import clear_output\nimport sys\n"
            "print('old', end='')\nprint('old', file=sys.stderr)\ndisplay(1)\n"
            "clear_output()\nprint('new')\ndisplay(2)"
        )
        self.assertEqual((cell.stdout, cell.stderr, self.kinds(cell)), ("new\n", "", ["clear"]))

    def test_clearing_may_wait_for_the_next_output(self):
        for output, stdout in (("print('new')", "new\n"), ("display('new')", "")):
            cell = self.succeeds(f"from IPython.display import clear_output\nprint('old')\nclear_output(wait=True)\n{output}")
            self.assertEqual((cell.stdout, self.kinds(cell)), (stdout, ["clear"]), output)
        cell = self.succeeds("print('old')\nclear_output(wait=True)\n'new'")
        self.assertEqual((cell.stdout, cell.text), ("", "'new'"))
        cell = self.run_cell("print('old')\nclear_output(wait=True)\n1 / 0")
        self.assertEqual((cell.stdout, self.kinds(cell)), ("", ["clear"]))
        cell = self.succeeds("print('old')\nclear_output(wait=True)\nNone")
        self.assertEqual((cell.stdout, cell.said), ("old\n", []))
        self.assertEqual(self.succeeds("print('next')").said, [])

    def test_the_last_of_many_steps_remains(self):
        cell = self.succeeds(
            "from IPython.display import clear_output\n"
            "for n in range(200):\n    clear_output(wait=True)\n    print('epoch', n)"
        )
        self.assertEqual(cell.stdout, "epoch 199\n")

    def test_an_update_names_what_it_replaces(self):
        cell = self.succeeds(
            "bar = display('0 of 2', display_id='bar')\nother = display('x', display_id=True)\n"
            "for n in (1, 2): bar.update(f'{n} of 2')\nother.update('y')"
        )
        said = [(frame["type"], frame["name"], frame["data"]["text/plain"]) for frame in cell.said]
        self.assertEqual(said, [
            ("display", 0, "'0 of 2'"), ("display", 1, "'x'"),
            ("update", 0, "'1 of 2'"), ("update", 0, "'2 of 2'"), ("update", 1, "'y'"),
        ])

    def test_clearing_works_whatever_became_of_the_streams(self):
        for code in ("os.dup2(os.open('/tmp/out', os.O_WRONLY | os.O_CREAT), 2)", "os.close(2)", "sys.stderr = None"):
            self.succeeds(f"import os, sys\nfrom IPython.display import clear_output\n{code}\nclear_output(); None")
            self.assertEqual(self.succeeds("clear_output()\nprint('new')").stdout, "new\n")

    def test_a_captured_cell_clears_nothing(self):
        cell = self.succeeds("print('kept')\nfrom IPython.utils.capture import capture_output\n"
                             "from IPython.display import clear_output\n"
                             "with capture_output():\n    clear_output()")
        self.assertEqual((cell.stdout, cell.said), ("kept\n", []))


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

    def test_whoever_asks_for_a_window_gets_images(self):
        for kind in ("notebook", "widget", "qt", "tk"):
            cell = self.succeeds(f"%matplotlib {kind}\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
            self.assertEqual([sorted(data) for data in cell.displays], [["image/png", "text/plain"]], kind)
            self.assertEqual(
                cell.stderr, f"[%matplotlib {kind}: figures are images here, as with %matplotlib inline]\n"
            )
        quiet = self.succeeds("%matplotlib inline\nplt.plot([1, 2])\nplt.show()")
        self.assertEqual((len(quiet.displays), quiet.stdout, quiet.stderr), (1, "", ""))
        self.succeeds("%matplotlib agg\nplt.plot([1, 2])\nplt.savefig('/tmp/a.png')")
        self.assertIn("not a recognised", self.fails("%matplotlib inlin")["message"])

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

    def test_an_empty_figure_after_the_chart_is_not_shown(self):
        self.succeeds("import matplotlib.pyplot as plt")
        for late in ("plt.xlabel('x')", "plt.title('t')", "plt.suptitle('t')", "plt.grid(True)", "plt.xlim(0, 1)",
                     "plt.legend()", "plt.gca()", "plt.xticks(rotation=45)"):
            cell = self.succeeds(f"plt.plot([1, 3, 2])\nplt.show()\n{late};")
            self.assertEqual([list(shown) for shown in cell.displays], [["text/plain", "image/png"]], late)
            self.assertEqual(self.succeeds("plt.get_fignums()").text, "[]")

    def test_a_second_chart_is_shown_and_so_is_an_empty_one_alone(self):
        for code, images in (
            ("plt.plot([1])\nplt.show()\nplt.plot([2]);", 2),
            ("plt.plot([1])\nplt.show()\nplt.text(0.5, 0.5, 'words');", 2),
            ("plt.plot([1])\nplt.show()\nplt.axhline(1);", 2),
            ("plt.plot([1])\nplt.show()\nplt.imshow([[1]]);", 2),
            ("plt.plot([1])\nplt.show()\nplt.figtext(0.5, 0.5, 'words');", 2),
            ("plt.title('empty');", 1),
        ):
            cell = self.succeeds("import matplotlib.pyplot as plt\n" + code)
            self.assertEqual(len(cell.displays), images, code)

    def test_drawings_and_animations_are_whole(self):
        cell = self.succeeds(
            "from IPython.display import Image, SVG\nimport io, PIL.Image\nfile = io.BytesIO()\n"
            "PIL.Image.new('P', (2, 2)).save(file, 'GIF')\nImage(file.getvalue(), format='gif')"
        )
        self.assertTrue(base64.b64decode(cell.result["image/gif"]).startswith(b"GIF8"))
        long = "<svg xmlns=\"http://www.w3.org/2000/svg\"><!--' + ' ' * (5 << 20) + '--></svg>"
        self.assertTrue(self.succeeds(f"SVG('{long}')").result["image/svg+xml"].rstrip().endswith("</svg>"))
