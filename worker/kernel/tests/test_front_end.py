"""What libraries find out about who reads their output: somebody far away, with no terminal."""

from session import Case

WIDE = "import pandas as pd\nwide = pd.DataFrame({f'column_{n}': [n] * 3 for n in range(12)})\n"


class FrontEnd(Case):
    def test_a_wide_frame_keeps_its_columns_however_it_is_shown(self):
        self.succeeds(WIDE)
        columns = {f"column_{n}" for n in range(12)}
        for code in ("print(wide)", "print(f'{wide}')", "print(wide.describe())", "print(wide.head(1).to_string())"):
            self.assertLessEqual(columns, set(self.succeeds(code).stdout.split()), code)
        for code in ("wide", "wide.describe()"):
            cell = self.succeeds(code)
            self.assertLessEqual(columns, set(cell.text.split()), code)
            for column in columns:
                self.assertIn(column, cell.result["text/html"])

    def test_pandas_has_the_options_that_it_has_in_a_notebook(self):
        cell = self.succeeds(
            "import pandas as pd\n"
            "[pd.get_option(f'display.{o}') for o in ('max_columns', 'max_rows', 'width', 'expand_frame_repr')]"
        )
        self.assertEqual(cell.text, "[20, 60, 80, True]")

    def test_more_than_twenty_columns_are_cut_in_the_middle(self):
        text = self.succeeds("import pandas as pd\npd.DataFrame({f'c{n}': range(3) for n in range(25)})").text
        self.assertIn("c0", text)
        self.assertIn("c24", text)
        self.assertIn("...", text)
        self.assertNotIn("c12 ", text)

    def test_each_way_to_ask_for_the_front_end_finds_a_kernel(self):
        for question, answer in (
            ("hasattr(get_ipython(), 'kernel')", "True"),  # pandas
            ("get_ipython().has_trait('kernel')", "True"),  # altair
            ("'IPKernelApp' in get_ipython().config", "True"),  # tqdm, plotly
            ("type(get_ipython()).__name__", "'ZMQInteractiveShell'"),  # rich, and many answers to the question
            ("'zmq' in str(type(get_ipython())).lower()", "True"),
            ("from pip._vendor.rich import console\nconsole._is_jupyter()", "True"),
            ("__import__('sys').stdout.isatty() or __import__('sys').stdin.isatty()", "False"),
        ):
            self.assertEqual(self.succeeds(question).text, answer, question)
