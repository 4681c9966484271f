//! What a cell may do and what its caller is told.

use std::time::Instant;

use loadtest::client::Status;

use crate::stack::{fail, printed, shared, succeed, value};

#[tokio::test]
async fn the_last_expression_is_the_result() {
    let stack = shared().await;
    let executed = succeed(&stack.session(), "print('hi')\n6 * 7").await;
    assert_eq!(
        (executed.result, executed.stdout.as_str()),
        (42.into(), "hi\n")
    );
    assert_eq!(
        (executed.execution_result, executed.stderr.as_str()),
        (42.into(), "")
    );
}

#[tokio::test]
async fn a_cell_without_a_last_expression_has_an_empty_result() {
    let stack = shared().await;
    let session = stack.session();
    for code in ["x = 1", "print('x')", "None", "1;", "# nothing"] {
        assert_eq!(value(&session, code).await, "", "{code:?}");
    }
}

#[tokio::test]
async fn variables_imports_and_functions_are_kept() {
    let stack = shared().await;
    let session = stack.session();
    succeed(
        &session,
        "import math\nx = 41\ndef square(n):\n    return n * n",
    )
    .await;
    assert_eq!(
        value(&session, "x + int(math.sqrt(1)) + square(3)").await,
        51
    );
}

#[tokio::test]
async fn the_underscore_is_the_last_result() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "20 + 1").await;
    assert_eq!(value(&session, "_ * 2").await, 42);
}

#[tokio::test]
async fn a_shell_line_runs_and_its_output_is_captured() {
    let stack = shared().await;
    let session = stack.session();
    assert_eq!(
        printed(&session, "!echo from the shell").await,
        "from the shell\n"
    );
    succeed(&session, "lines = !printf 'a\\nb\\n'").await;
    assert_eq!(value(&session, "len(lines)").await, 2);
}

#[tokio::test]
async fn await_works_at_the_top_level() {
    let stack = shared().await;
    let session = stack.session();
    let code =
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 7\nawait f()";
    assert_eq!(value(&session, code).await, 7);
    assert_eq!(
        value(&session, "(await asyncio.gather(f(), f()))[1]").await,
        7
    );
}

#[tokio::test]
async fn magics_work() {
    let stack = shared().await;
    let session = stack.session();
    assert_eq!(printed(&session, "%%bash\necho in bash").await, "in bash\n");
    succeed(&session, "%%writefile /mnt/data/m.py\ny = 5").await;
    succeed(&session, "%run /mnt/data/m.py").await;
    assert_eq!(value(&session, "y").await, 5);
    assert!(
        printed(&session, "%timeit -n1 -r1 1+1")
            .await
            .contains("per loop")
    );
}

#[tokio::test]
async fn a_traceback_names_the_callers_line_without_colours() {
    let stack = shared().await;
    let session = stack.session();
    let code = "print('before')\ndef divide(n):\n    return n / 0\ndivide(1)";
    let executed = fail(&session, code).await;
    assert_eq!(executed.stdout, "before\n");
    assert_eq!(executed.result, "");
    for part in [
        "Traceback",
        "return n / 0",
        "divide(1)",
        "ZeroDivisionError: division by zero",
    ] {
        assert!(
            executed.stderr.contains(part),
            "{part} is missing in {}",
            executed.stderr
        );
    }
    assert!(!executed.stderr.contains('\u{1b}'), "{:?}", executed.stderr);
}

#[tokio::test]
async fn a_syntax_error_is_the_callers() {
    let stack = shared().await;
    let executed = fail(&stack.session(), "def f(:\n  pass").await;
    assert!(
        executed.stderr.contains("SyntaxError"),
        "{}",
        executed.stderr
    );
    assert!(executed.stderr.contains("def f(:"), "{}", executed.stderr);
}

#[tokio::test]
async fn state_is_kept_across_errors() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 11").await;
    fail(&session, "half = 1\nraise ValueError('boom')").await;
    assert_eq!(value(&session, "kept + half").await, 12);
}

#[tokio::test]
async fn exit_is_a_failure_of_the_cell_and_not_of_the_session() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 1").await;
    for code in [
        "import sys\nsys.exit(3)",
        "raise SystemExit",
        "raise KeyboardInterrupt",
    ] {
        session.execute(code).await.unwrap();
        assert_eq!(value(&session, "kept").await, 1, "after {code:?}");
    }
}

#[tokio::test]
async fn standard_error_of_a_success_is_told_apart() {
    let stack = shared().await;
    let code = "import sys\nprint('oops', file=sys.stderr)\nprint('fine')";
    let executed = succeed(&stack.session(), code).await;
    assert_eq!(
        (executed.stdout.as_str(), executed.stderr.as_str()),
        ("fine\n", "oops\n")
    );
}

#[tokio::test]
async fn output_of_subprocesses_is_captured_in_order() {
    let stack = shared().await;
    let code = "import os, subprocess, sys\n\
                print('one', flush=True)\n\
                subprocess.run(['sh', '-c', 'echo two; echo complaint >&2'])\n\
                os.write(1, b'three\\n')\n\
                print('four')";
    let executed = succeed(&stack.session(), code).await;
    assert_eq!(executed.stdout, "one\ntwo\nthree\nfour\n");
    assert_eq!(executed.stderr, "complaint\n");
}

#[tokio::test]
async fn output_of_a_background_process_belongs_to_the_cell_that_it_comes_in() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import subprocess\nyes = subprocess.Popen(['yes'])\n1";
    let started = Instant::now();
    assert_eq!(value(&session, code).await, 1);
    assert_eq!(value(&session, "yes.kill(); yes.wait()").await, -9);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[tokio::test]
async fn unicode_survives_both_ways() {
    let stack = shared().await;
    let session = stack.session();
    let code = "for i in range(2):\n    print(i, 'žluť 日本 🎉')";
    assert_eq!(
        printed(&session, code).await,
        "0 žluť 日本 🎉\n1 žluť 日本 🎉\n"
    );
    assert_eq!(
        printed(&session, "import os\n_n = os.write(1, b'\\xff\\n')").await,
        "\u{fffd}\n"
    );
}

#[tokio::test]
async fn a_long_cell_travels_whole() {
    let stack = shared().await;
    let text = "x".repeat(3 << 20);
    assert_eq!(
        value(&stack.session(), &format!("len('{text}')")).await,
        3 << 20
    );
}

#[tokio::test]
async fn code_that_is_too_long_is_refused() {
    let stack = shared().await;
    let text = "x".repeat(5 << 20);
    let answer = stack.session().execute(&format!("len('{text}')")).await;
    assert_eq!(crate::stack::refusal(answer).0, 413);
}

#[tokio::test]
async fn executions_of_one_session_run_one_after_the_other() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "import time\nlog = []").await;
    let enter = "log.append('in'); time.sleep(0.2); log.append('out')";
    let all = futures_util::future::join_all((0..4).map(|_| session.execute(enter))).await;
    assert!(
        all.iter()
            .all(|answer| answer.as_ref().unwrap().status == Status::Success)
    );
    assert_eq!(value(&session, "log == ['in', 'out'] * 4").await, "True");
}

#[tokio::test]
async fn an_execution_may_take_the_time_that_its_caller_gives_it() {
    let stack = shared().await;
    let session = stack.session();
    let executed = session
        .execute_within(30, "import time\ntime.sleep(3)\n1")
        .await
        .unwrap();
    assert_eq!(
        (executed.status, executed.result),
        (Status::Success, 1.into())
    );
    let time = executed.execution_time_in_milliseconds;
    assert!((2900..10_000).contains(&time), "{time}");
}
