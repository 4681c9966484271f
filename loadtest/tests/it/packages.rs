//! What a session installs itself.

use loadtest::{
    client::{Session, Status},
    cluster::{Cluster, Member},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Stack, printed, shared, succeed, value};

/// Defines `wheel`, which writes one into the working directory and tells its name.
const WHEELS: &str = r#"
import pathlib, subprocess, sys, zipfile
def wheel(name, version, files, needs=()):
    path = f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{about}/METADATA": "".join([
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {one}\n" for one in needs)]),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for one, text in files.items():
            file.writestr(one, text)
    return path
def simple(name, version="1.0", needs=()):
    return wheel(name, version, {f"{name}.py": f"version = '{version}'\n"}, needs)
"#;

/// A session in which wheels can be made.
async fn session_with_wheels(stack: &Stack) -> Session {
    let session = stack.session();
    succeed(&session, WHEELS).await;
    session
}

async fn names(session: &Session) -> Vec<String> {
    let files = session.list().await.unwrap();
    let mut names: Vec<_> = files.into_iter().map(|file| file.filename).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_uploaded_wheel_can_be_imported_as_soon_as_it_is_installed() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    for (name, install) in [
        ("magic", "%pip install magic-1.0-py3-none-any.whl"),
        ("by_name", "!pip install by_name"),
        (
            "of_a_user",
            "!python3 -m pip install --user /mnt/data/of_a_user-1.0-py3-none-any.whl",
        ),
        (
            "in_a_process",
            "subprocess.run([sys.executable, '-m', 'pip', 'install', 'in_a_process'], check=True)",
        ),
    ] {
        succeed(&session, &format!("simple('{name}')")).await;
        let missed =
            format!("import importlib.util\nint(importlib.util.find_spec('{name}') is None)");
        assert_eq!(value(&session, &missed).await, 1, "{name}");
        let code = format!("{install}\nimport {name}\n{name}.version");
        assert_eq!(value(&session, &code).await, "'1.0'", "{name}");
        // In programs, too.
        let program = format!("!python3 -c 'import {name}; print({name}.version)'");
        assert_eq!(printed(&session, &program).await, "1.0\n", "{name}");
    }
    let wheels = ["by_name", "in_a_process", "magic", "of_a_user"]
        .map(|name| format!("{name}-1.0-py3-none-any.whl"));
    assert_eq!(names(&session).await, wheels);
    // The next interpreter of this session has them, too.
    session.execute("import os\nos._exit(1)").await.unwrap();
    assert_eq!(
        value(&session, "import magic\nmagic.version").await,
        "'1.0'"
    );
}

#[tokio::test]
async fn a_wheel_is_installed_where_the_user_wants_it() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    succeed(&session, "simple('elsewhere')").await;
    let target = "!pip install --target libs elsewhere\nsys.path.append('/mnt/data/libs')\n\
                  import elsewhere\nelsewhere.version, elsewhere.__file__";
    assert_eq!(
        value(&session, target).await,
        "('1.0', '/mnt/data/libs/elsewhere.py')"
    );
    let environment = "!python3 -m venv /tmp/env\n\
                       !/tmp/env/bin/pip install --quiet elsewhere\n\
                       !/tmp/env/bin/python -c 'import elsewhere; print(elsewhere.__file__)'";
    assert_eq!(
        printed(&session, environment).await,
        "/tmp/env/lib/python3.13/site-packages/elsewhere.py\n"
    );
}

#[tokio::test]
async fn what_is_installed_is_upgraded_and_uninstalled() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    let upgrade = "simple('changing'); simple('changing', '2.0'); simple('needing', needs=['changing<2', 'numpy'])\n\
                   !pip install --quiet needing\n\
                   !pip install --quiet --no-deps --upgrade changing\n\
                   import changing, needing\nchanging.version";
    assert_eq!(value(&session, upgrade).await, "'2.0'");
    // A newer one of the image's own is taken where the older one is not loaded yet.
    let newer = "assert 'tabulate' not in sys.modules\nsimple('tabulate', '99.0')\n\
                 !pip install --quiet --upgrade tabulate\nimport tabulate\ntabulate.version";
    assert_eq!(value(&session, newer).await, "'99.0'");
    let gone = "!pip uninstall --quiet --yes tabulate changing needing\n\
                !python3 -c 'import importlib.util as a, tabulate as b; print(a.find_spec(\"needing\"), b.__version__ < \"99\")'";
    assert_eq!(
        printed(&session, gone).await,
        "None True\n",
        "the image's own is back"
    );
    let there = session.execute("!pip install numpy pandas").await.unwrap();
    assert!(
        there.stdout.contains("already satisfied: numpy"),
        "{there:?}"
    );
    assert_eq!(there.stderr, "");
    let stays = session.execute("!pip uninstall --yes numpy").await.unwrap();
    assert!(stays.stdout.contains("cannot be changed"), "{stays:?}");
    assert_eq!(stays.stderr, "");
}

#[tokio::test]
async fn uv_installs_beside_what_the_image_has() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    let install = "simple('with_uv', needs=['numpy']); simple('changing'); simple('changing', '2.0')\n\
                   simple('tabulate', '99.0')\n\
                   !uv pip install --system numpy with_uv changing==1.0\n\
                   !uv pip install --upgrade changing tabulate-99.0-py3-none-any.whl\n\
                   import changing, tabulate, with_uv\nchanging.version, tabulate.version, with_uv.version";
    assert_eq!(value(&session, install).await, "('2.0', '99.0', '1.0')");
    let gone = "!uv pip uninstall --quiet tabulate\n\
                !python3 -c 'import tabulate; print(tabulate.__version__ < \"99\")'\n\
                !uv pip freeze | grep -E '^(changing|numpy|with_uv)=' | cut -d= -f1";
    assert_eq!(
        printed(&session, gone).await,
        "True\nchanging\nnumpy\nwith_uv\n"
    );
    let environment = "!uv venv --quiet /tmp/env\n\
                       !VIRTUAL_ENV=/tmp/env uv pip install --quiet changing\n\
                       !/tmp/env/bin/python -c 'import changing; print(changing.__file__)'";
    assert_eq!(
        printed(&session, environment).await,
        "/tmp/env/lib/python3.13/site-packages/changing.py\n"
    );
    let told = session.execute("!uv pip install nosuch").await.unwrap();
    for words in ["nosuch", "network"] {
        assert!(told.stderr.contains(words), "{told:?}");
    }
}

#[tokio::test]
async fn source_is_installed_where_it_lies_or_built_from_it() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    let source = "for name in ('linked', 'built'):\n    \
                      place = pathlib.Path('/tmp', name, 'src', name)\n    place.mkdir(parents=True)\n    \
                      (place / '__init__.py').write_text('x = 42')\n    \
                      (place / '../../pyproject.toml').resolve().write_text(f'''[build-system]\n\
                  requires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
                  [project]\nname = \"{name}\"\nversion = \"1.0\"\n''')";
    succeed(&session, source).await;
    let install = "!pip install --quiet -e /tmp/linked\n!pip install --quiet /tmp/built\n\
                   import built, linked\nbuilt.x, linked.x";
    assert_eq!(value(&session, install).await, "(42, 42)");
    assert_eq!(names(&session).await, Vec::<String>::new());
}

/// Nothing of it may end in memory, where there is much less room.
#[tokio::test]
async fn a_large_wheel_finds_room_where_files_do() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    let large =
        "wheel('large', '1.0', {'large/__init__.py': 'x = 42', 'large/data': bytes(300 << 20)})";
    succeed(&session, large).await;
    let anywhere = "!pip install --quiet large\nimport large, os\n\
                    large.x, os.path.getsize(os.path.join(*large.__path__, 'data')) >> 20";
    assert_eq!(value(&session, anywhere).await, "(42, 300)");
    let target = "!pip uninstall --quiet --yes large && pip install --quiet --target libs large\n\
                  size = os.path.getsize('libs/large/data') >> 20\n!rm -rf libs\nsize";
    assert_eq!(value(&session, target).await, 300);
    let uv = "!uv pip install --quiet large\nos.path.getsize(os.path.join(*large.__path__, 'data')) >> 20";
    assert_eq!(value(&session, uv).await, 300);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_one_line() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    succeed(
        &session,
        "simple('needing', needs=['nosuch'])\n!python3 -m venv /tmp/env",
    )
    .await;
    for install in [
        "!pip install nosuch",
        "%pip install nosuch==1.5",
        "!pip install needing",
        "!pip download nosuch",
        "!pip index versions nosuch",
        "!/tmp/env/bin/pip install nosuch",
        "!pip install https://nosuch.example/nosuch-1.0-py3-none-any.whl",
    ] {
        let told = session.execute(install).await.unwrap();
        assert_eq!(told.status, Status::Success, "{told:?}");
        let lines: Vec<_> = told.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{install}: {told:?}");
        for words in ["ERROR: ", "nosuch", "no network", "upload", "/mnt/data"] {
            assert!(lines[0].contains(words), "{install}: {told:?}");
        }
    }
}

#[tokio::test]
async fn no_package_breaks_its_session() {
    let stack = shared().await;
    let session = session_with_wheels(&stack).await;
    // Of every module that the kernel may want, and in a file that is read at the start of every Python.
    let broken = r#"
import importlib.metadata
modules = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "hearth_kernel", "sitecustomize"}
wheel("broken", "1.0", {
    **{f"{name}.py": "raise SystemError('the wrong module')" for name in modules},
    "broken.pth": "import nosuch\n",
    "whole.py": "x = 42",
})
!pip install --quiet broken
"#;
    succeed(&session, broken).await;
    for _ in 0..2 {
        let code = "import json, numpy as np, pandas as pd, matplotlib.pyplot as plt\nplt.plot([1])\nplt.close()\n\
                    int(json.dumps(int(np.arange(3).sum())))";
        assert_eq!(value(&session, code).await, 3);
        assert_eq!(value(&session, "import whole\nwhole.x").await, 42);
        let failed = session.execute("1 / 0").await.unwrap();
        assert_eq!(failed.status, Status::Failure);
        assert!(failed.stderr.contains("ZeroDivisionError"), "{failed:?}");
        session.execute("import os\nos._exit(1)").await.unwrap();
    }
}

#[tokio::test]
async fn what_was_installed_is_named_as_lost_when_its_session_moves() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, WHEELS).await;
    let install =
        "simple('installed')\n!pip install --quiet installed\nimport installed\nkept = 42";
    succeed(&session, install).await;
    cluster.restart(Member::Worker(0)).await.unwrap();
    let request = session.request(Method::POST, "code/execute");
    let code = "import importlib.util\nkept, importlib.util.find_spec('installed') is None";
    let body = json!({ "properties": { "code": code } });
    let response = request.json(&body).send().await.unwrap();
    let lost = response.headers()["x-hearth-lost-variables"].to_str();
    let lost = lost.unwrap().to_owned();
    assert!(
        lost.split(", ").any(|one| one == "package%20installed"),
        "{lost}"
    );
    let told = response.json::<Value>().await.unwrap();
    assert_eq!(told["properties"]["result"], "(42, True)", "{told}");
    // Its wheel is still there.
    let again = "!pip install --quiet installed\nimport installed\ninstalled.version";
    assert_eq!(value(&session, again).await, "'1.0'");
}
