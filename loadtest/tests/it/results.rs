//! `result`: the text form of the last value, as JSON where it is JSON (facts 3 to 5 of the
//! contract).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::stack::{shared, succeed, value};

#[tokio::test]
async fn a_result_is_the_text_form_parsed_where_it_is_json() {
    let stack = shared().await;
    let session = stack.session();
    let cases: [(&str, Value); 14] = [
        ("6 * 7", json!(42)),
        ("-1530", json!(-1530)),
        ("1.5", json!(1.5)),
        ("[1, 2, 3]", json!([1, 2, 3])),
        ("'abc'", json!("'abc'")),
        ("True", json!("True")),
        ("{'sin': 1.2, 'b': 'x'}", json!("{'sin': 1.2, 'b': 'x'}")),
        ("['a', 'b']", json!("['a', 'b']")),
        ("(1, 2)", json!("(1, 2)")),
        ("float('nan')", json!("nan")),
        ("float('inf')", json!("inf")),
        ("{1, 2}", json!("{1, 2}")),
        ("b'x'", json!("b'x'")),
        ("range(3)", json!("range(0, 3)")),
    ];
    for (code, expected) in cases {
        let executed = succeed(&session, code).await;
        assert_eq!(executed.result, expected, "{code}");
        assert_eq!(executed.execution_result, expected, "{code}");
    }
}

#[tokio::test]
async fn a_large_number_is_not_rounded() {
    let stack = shared().await;
    let session = stack.session();
    let request = session
        .request(reqwest::Method::POST, "code/execute")
        .json(&json!({ "properties": { "code": "2 ** 100" } }));
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("1267650600228229401496703205376"), "{text}");
}

#[tokio::test]
async fn a_long_list_has_one_item_per_line() {
    let stack = shared().await;
    let result = value(&stack.session(), "['package-%03d' % n for n in range(40)]").await;
    let text = result.as_str().unwrap();
    let names: Vec<_> = text
        .trim_matches(['[', ']'])
        .split(",\n")
        .map(|name| name.trim_matches([' ', '\'']))
        .collect();
    assert_eq!(
        (names.len(), names[0], names[39]),
        (40, "package-000", "package-039")
    );
}

#[tokio::test]
async fn installed_packages_are_listed_as_autogen_reads_them() {
    let stack = shared().await;
    let code = "\nimport pkg_resources\n[d.project_name for d in pkg_resources.working_set]\n";
    let executed = succeed(&stack.session(), code).await;
    let output = format!(
        "{}{}{}",
        executed.stderr,
        executed.stdout,
        executed.result.as_str().unwrap()
    );
    let names: Vec<String> = output
        .trim_matches(['[', ']'])
        .split(",\n")
        .map(|name| {
            name.trim_matches([' ', '\''])
                .to_lowercase()
                .replace('_', "-")
        })
        .collect();
    for package in ["numpy", "pandas", "scikit-learn", "matplotlib", "ipython"] {
        assert!(
            names.iter().any(|name| name == package),
            "{package} is missing in {output}"
        );
    }
}

#[tokio::test]
async fn a_figure_is_a_png() {
    let stack = shared().await;
    let session = stack.session();
    let plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [1, 4, 9])\nplt.title('t')\n";
    for code in [
        format!("{plot}plt.show()\n"),
        format!("{plot}print('drawn')"),
    ] {
        let executed = succeed(&session, &code).await;
        let result = &executed.result;
        assert_eq!(
            (&result["type"], &result["format"]),
            (&json!("image"), &json!("png"))
        );
        let png = STANDARD
            .decode(result["base64_data"].as_str().unwrap())
            .unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(&executed.execution_result, result);
    }
}

/// A cell has one result whatever it shows: the last image, else the value of the last expression.
#[tokio::test]
async fn of_several_outputs_the_last_image_is_the_result() {
    let stack = shared().await;
    let session = stack.session();
    let show = |width: u32| {
        format!(
            "plt.figure(figsize=({width}, 1), dpi=10)\nplt.plot([1])\n\
             display(plt.gcf(), metadata={{}})\nplt.close()\n"
        )
    };
    let start = "import matplotlib.pyplot as plt\nfrom IPython.display import display\n";
    succeed(&session, start).await;
    let image = |result: &Value| {
        assert_eq!(
            (&result["type"], &result["format"]),
            (&json!("image"), &json!("png"))
        );
        STANDARD
            .decode(result["base64_data"].as_str().unwrap())
            .unwrap()
    };
    let (one, other) = (
        image(&value(&session, &show(10)).await),
        image(&value(&session, &show(20)).await),
    );
    assert_ne!(one, other);
    for (code, expected) in [
        (show(10) + &show(20), &other),
        (show(20) + &show(10), &one),
        (show(20) + "6 * 7", &other),
    ] {
        assert!(image(&value(&session, &code).await) == *expected, "{code}");
    }
    assert_eq!(value(&session, "display('shown')\n6 * 7").await, 42);
}

#[tokio::test]
async fn a_frame_is_shown_as_text() {
    let stack = shared().await;
    let code = "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': [3, 4]})";
    let result = value(&stack.session(), code).await;
    assert_eq!(result, "   a  b\n0  1  3\n1  2  4");
}

#[tokio::test]
async fn a_value_whose_text_form_raises_fails_the_cell_without_harm() {
    let stack = shared().await;
    let session = stack.session();
    let code = "class Bad:\n    def __repr__(self):\n        raise RuntimeError('no text')\nBad()";
    let executed = session.execute(code).await.unwrap();
    assert_eq!(executed.status, loadtest::client::Status::Failure);
    assert!(executed.stderr.contains("no text"), "{executed:?}");
    assert_eq!(value(&session, "1").await, 1);
}
