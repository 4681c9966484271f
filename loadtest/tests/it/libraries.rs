//! What data people bring along must work inside the sandbox.

use crate::stack::{printed, shared, succeed, value};

#[tokio::test]
async fn what_the_contract_promises_can_be_imported() {
    let stack = shared().await;
    let modules = "pandas numpy matplotlib scipy sklearn statsmodels.api seaborn sympy pyarrow networkx \
                   openpyxl docx pptx xlsxwriter reportlab PIL lxml.etree bs4 tabulate requests \
                   pkg_resources IPython";
    let code = format!(
        "import importlib, warnings\nwarnings.simplefilter('ignore')\nmissing = []\n\
         for name in '{modules}'.split():\n    try:\n        importlib.import_module(name)\n    \
         except ImportError as error:\n        missing.append(str(error))\nprint(*missing, sep='\\n')"
    );
    assert_eq!(printed(&stack.session(), &code).await, "\n");
}

#[tokio::test]
async fn numpy_pandas_scipy_and_scikit_learn_work() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import numpy as np\nimport pandas as pd\nimport scipy.linalg\n\
                from sklearn.linear_model import LinearRegression\n\
                x = np.arange(10).reshape(-1, 1)\n\
                model = LinearRegression().fit(x, 3 * x.ravel() + 1)\n\
                frame = pd.DataFrame({'k': list('abab'), 'v': [1, 2, 3, 4]})\n\
                assert scipy.linalg.det(np.eye(3)) == 1\n\
                (int(round(model.coef_[0])), int(frame.groupby('k').v.sum()['b']))";
    assert_eq!(value(&session, code).await, "(3, 6)");
}

#[tokio::test]
async fn files_of_common_kinds_can_be_written_and_read() {
    let stack = shared().await;
    let code = "import pandas as pd\n\
                f = pd.DataFrame({'a': [1, 2]})\n\
                f.to_csv('/mnt/data/f.csv', index=False)\n\
                f.to_excel('/mnt/data/f.xlsx', index=False)\n\
                f.to_parquet('/mnt/data/f.parquet')\n\
                int(sum(d.a.sum() for d in (pd.read_csv('/mnt/data/f.csv'), \
                pd.read_excel('/mnt/data/f.xlsx'), pd.read_parquet('/mnt/data/f.parquet'))))";
    assert_eq!(value(&stack.session(), code).await, 9);
}

#[tokio::test]
async fn threads_work() {
    let stack = shared().await;
    let code = "from concurrent.futures import ThreadPoolExecutor\n\
                with ThreadPoolExecutor(8) as pool:\n    s = sum(pool.map(lambda n: n * n, range(100)))\n\
                s";
    assert_eq!(value(&stack.session(), code).await, 328_350);
}

#[tokio::test]
async fn subprocesses_work() {
    let stack = shared().await;
    let code = "import subprocess, sys\n\
                print(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'], text=True), end='')";
    assert_eq!(printed(&stack.session(), code).await, "42\n");
}

#[tokio::test]
async fn multiprocessing_works_by_fork_and_by_spawn() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "import math, multiprocessing").await;
    for method in ["fork", "spawn"] {
        let code = format!(
            "with multiprocessing.get_context('{method}').Pool(2) as pool:\n    \
             r = pool.map(math.factorial, [3, 4])\nr"
        );
        assert_eq!(
            value(&session, &code).await,
            serde_json::json!([6, 24]),
            "{method}"
        );
    }
}

#[tokio::test]
async fn sessions_draw_different_random_numbers() {
    let stack = shared().await;
    let code = "import os, random, uuid\nimport numpy as np\n\
                print(random.random(), np.random.rand(), os.urandom(4).hex(), uuid.uuid4())";
    let first = printed(&stack.session(), code).await;
    let second = printed(&stack.session(), code).await;
    for (one, other) in first.split_whitespace().zip(second.split_whitespace()) {
        assert_ne!(one, other);
    }
}

#[tokio::test]
async fn a_small_frame_operation_gives_its_result() {
    let stack = shared().await;
    let code = "import pandas as pd\nint(pd.DataFrame({'a': range(1000)}).a.sum())";
    assert_eq!(value(&stack.session(), code).await, 499_500);
}
