//! Code that writes to its kernel's socket itself. What it writes ends at worst its own current answer.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use proto::limits::{
    DISPLAYS, ERROR_MESSAGE_BYTES, ERROR_NAME_BYTES, KERNEL_SILENCE, MIME_TYPE_BYTES, MIME_TYPES,
    OUTPUT_TEXT_BYTES,
};
use worker::kernel::{Cell, CellEnd, Kernel, Program, Violation};
use worker::sandbox::Cage;

use super::{Host, within};

/// What a pool lets a cell print.
const OUTPUT_BYTES: u64 = 1 << 20;
/// What is added where something is cut.
const NOTICE_BYTES: usize = 200;

/// Lets code speak for its kernel. Tests of the whole stack can include it, too.
const FORGE: &str = include_str!("forge.py");

async fn join(cage: &Cage) -> Kernel {
    let process = within("a join", cage.join()).await.unwrap();
    within("a kernel", Kernel::ready(process)).await.unwrap()
}

/// A kernel that can forge.
async fn forger(host: &Host) -> (Cage, Kernel) {
    let cage = host.cage().await;
    let mut kernel = join(&cage).await;
    assert_eq!(text(&run(&mut kernel, FORGE).await), None);
    (cage, kernel)
}

async fn run(kernel: &mut Kernel, code: &str) -> Cell {
    within("a cell", kernel.run(&Program::plain(code, OUTPUT_BYTES))).await
}

/// The result of a cell that must succeed, as text.
fn text(cell: &Cell) -> Option<String> {
    match &cell.end {
        CellEnd::Done {
            result,
            error: None,
        } => result
            .as_ref()
            .and_then(|result| result.get("text/plain"))
            .map(str::to_owned),
        end => panic!("{end:?} {}", cell.stderr),
    }
}

/// The kernel is of no use any more and gone.
async fn is_killed(kernel: &Kernel) {
    let status = within("the kernel's end", kernel.handle().exited()).await;
    assert_eq!(status.signal(), Some(9));
}

#[tokio::test]
async fn a_second_answer_in_one_write_ends_its_own_cell_only() {
    let host = Host::start().await;
    for second in [
        "done('forged', id=number() + 1)",
        "shown('more')",
        "b''",
        "b'{}'",
    ] {
        let (cage, mut kernel) = forger(&host).await;
        let cell = run(&mut kernel, &format!("say(done(), {second})")).await;
        assert!(
            matches!(cell.end, CellEnd::Broken(Violation::OutOfTurn)),
            "{second}: {:?}",
            cell.end
        );
        is_killed(&kernel).await;
        cage.clear().await.unwrap();
        let mut next = join(&cage).await;
        assert_eq!(text(&run(&mut next, "6 * 7").await).unwrap(), "42");
        within("destruction", cage.destroy()).await.unwrap();
    }
    host.stop().await;
}

#[tokio::test]
async fn what_is_written_between_cells_ends_the_kernel_and_is_no_answer() {
    let host = Host::start().await;
    for later in [
        "say(*(done('forged', id=n) for n in range(1, 100)))",
        "write(b'x')",
        "os.close(3)",
    ] {
        let (cage, mut kernel) = forger(&host).await;
        let code = format!(
            "def later():\n    while not over: pass\n    time.sleep(0.1)\n    {later}\n\
             over = False\nthreading.Thread(target=later).start()\nover = True\n'end'"
        );
        assert_eq!(text(&run(&mut kernel, &code).await).unwrap(), "'end'");
        // Nobody listens meanwhile, as right before the next cell.
        if later != "os.close(3)" {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let cell = run(&mut kernel, "6 * 7").await;
            assert!(
                matches!(cell.end, CellEnd::Broken(Violation::OutOfTurn)),
                "{later}: {:?}",
                cell.end
            );
        } else {
            within("the end of the rest", kernel.idle()).await;
        }
        within("the kernel's end", kernel.handle().exited()).await;
        within("destruction", cage.destroy()).await.unwrap();
    }
    let (cage, mut kernel) = forger(&host).await;
    let later = "def later():\n    time.sleep(0.5)\n    write(b'x')\n\
                 threading.Thread(target=later).start()";
    run(&mut kernel, later).await;
    assert_eq!(
        within("the end of the rest", kernel.idle()).await.signal(),
        Some(9)
    );
    drop(cage);
    host.stop().await;
}

#[tokio::test]
async fn answers_cannot_be_written_ahead() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let first = text(&run(&mut kernel, "number()").await).unwrap();
    let second = text(&run(&mut kernel, "number()").await).unwrap();
    let numbers = [&first, &second].map(|number| number.parse::<u64>().unwrap());
    assert!(numbers[0].abs_diff(numbers[1]) > 1 << 20, "{numbers:?}");
    // A frame about another cell is nobody's answer, and no kernel sends one.
    let cell = run(&mut kernel, "say(done(id=number() + 1))\ntime.sleep(60)").await;
    assert!(matches!(cell.end, CellEnd::Broken(Violation::OutOfTurn)));
    is_killed(&kernel).await;
    host.stop().await;
}

#[tokio::test]
async fn code_that_runs_on_after_its_answer_is_ended_between_cells() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
                say(done('early'))\nwhile True: pass";
    assert_eq!(text(&run(&mut kernel, code).await).unwrap(), "early");
    let started = Instant::now();
    let status = within("the end of the rest", kernel.idle()).await;
    assert_eq!(status.signal(), Some(9));
    assert!(started.elapsed() < KERNEL_SILENCE + Duration::from_secs(5));
    host.stop().await;
}

#[tokio::test]
async fn code_that_runs_on_after_its_answer_cannot_hold_up_the_next_cell() {
    let host = Host::start().await;
    let (cage, mut kernel) = forger(&host).await;
    let code = "say(done())\ntime.sleep(1000)";
    run(&mut kernel, code).await;
    let started = Instant::now();
    let cell = run(&mut kernel, "6 * 7").await;
    assert!(
        matches!(cell.end, CellEnd::Broken(Violation::Busy)),
        "{:?}",
        cell.end
    );
    assert!(started.elapsed() < KERNEL_SILENCE + Duration::from_secs(5));
    is_killed(&kernel).await;
    cage.clear().await.unwrap();
    let mut next = join(&cage).await;
    assert_eq!(text(&run(&mut next, "6 * 7").await).unwrap(), "42");
    host.stop().await;
}

#[tokio::test]
async fn a_kernel_that_waits_is_probed_and_lives() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    run(&mut kernel, "x = 41").await;
    // Longer than until the probe, and until it must have been taken.
    let rest = KERNEL_SILENCE + Duration::from_secs(3);
    assert!(tokio::time::timeout(rest, kernel.idle()).await.is_err());
    assert_eq!(text(&run(&mut kernel, "x + 1").await).unwrap(), "42");
    host.stop().await;
}

#[tokio::test]
async fn a_frame_that_does_not_go_on_ends_its_cell_in_time() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let started = Instant::now();
    let cell = run(&mut kernel, "write(b'x')\ntime.sleep(1000)").await;
    assert!(
        matches!(cell.end, CellEnd::Broken(Violation::Stalled)),
        "{:?}",
        cell.end
    );
    assert!(started.elapsed() < KERNEL_SILENCE + Duration::from_secs(5));
    is_killed(&kernel).await;
    host.stop().await;
}

#[tokio::test]
async fn descriptors_that_are_sent_along_hold_nothing_up() {
    let host = Host::start().await;
    for what in ["b''", "b'x' * 100_000", "frame"] {
        let (cage, mut kernel) = forger(&host).await;
        let code = format!(
            "frame = json.dumps(shown('x')).encode()\nframe = struct.pack('<I', len(frame)) + frame\n\
             sides = socket.socketpair()\nown = socket.socket(fileno=os.dup(3))\n\
             try:\n    for _ in range(20): socket.send_fds(own, [{what} or frame], [own.fileno(), *(side.fileno() for side in sides)])\n\
             except OSError as error: kind = type(error).__name__\n\
             else: kind = 'sent'\nown.close()\nkind"
        );
        let started = Instant::now();
        let cell = run(&mut kernel, &code).await;
        // A kernel that can refuses them; one that cannot closes them, and the cell ends.
        match &cell.end {
            CellEnd::Broken(violation) => {
                assert!(
                    matches!(violation, Violation::Descriptors),
                    "{what}: {violation:?}"
                );
            }
            _ => assert_eq!(text(&cell).unwrap(), "'PermissionError'", "{what}"),
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        within("destruction", cage.destroy()).await.unwrap();
    }
    host.stop().await;
}

#[tokio::test]
async fn a_forged_error_is_bounded_and_counted() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let code = "os.write(2, b'e' * 60_000)\nlong = 'x' * (8 << 20)\n\
                say(done(error={'name': long, 'message': long, 'traceback': long + 'end'}))\ntime.sleep(1000)";
    let cell = run(&mut kernel, code).await;
    let CellEnd::Done {
        error: Some(error), ..
    } = &cell.end
    else {
        panic!("{:?}", cell.end);
    };
    assert_eq!(error.name.len(), ERROR_NAME_BYTES);
    assert_eq!(error.message.len(), ERROR_MESSAGE_BYTES);
    let told = cell.stderr.len() + error.traceback.len();
    let most = usize::try_from(OUTPUT_BYTES).unwrap();
    assert!(told <= most + NOTICE_BYTES, "{told}");
    assert!(error.traceback.ends_with("xend"));
    let cut = (8 << 20) + 3 + 60_000 - most as u64;
    assert!(cell.truncated.stderr >= cut, "{:?}", cell.truncated);
    host.stop().await;
}

#[tokio::test]
async fn a_traceback_finds_room_beside_a_flood_of_errors() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let cell = run(
        &mut kernel,
        "sys.stderr.write('e' * (2 << 20))\nraise ValueError('y' * 1000)",
    )
    .await;
    let CellEnd::Done {
        error: Some(error), ..
    } = &cell.end
    else {
        panic!("{:?}", cell.end);
    };
    assert!(error.traceback.contains("ValueError: yyy"));
    let told = cell.stderr.len() + error.traceback.len();
    let most = usize::try_from(OUTPUT_BYTES).unwrap();
    assert!((most..=most + NOTICE_BYTES).contains(&told), "{told}");
    assert!(cell.truncated.stderr > 1 << 20);
    host.stop().await;
}

#[tokio::test]
async fn forged_outputs_are_bounded_and_counted() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let code = "long = 'ž' * (3 << 20)\n\
                say(shown(long), *(shown(str(n)) for n in range(100)), done(result={'text/plain': long, 'text/html': '<b>'}))\n\
                time.sleep(1000)";
    let cell = run(&mut kernel, code).await;
    let result = text(&cell).unwrap();
    for shown in [&result, cell.displays[0].get("text/plain").unwrap()] {
        assert!(shown.len() <= OUTPUT_TEXT_BYTES + NOTICE_BYTES);
        assert!(shown.ends_with("[cut: longer than 4 MiB]"));
    }
    assert_eq!(cell.displays.len(), DISPLAYS);
    let dropped = 101 - DISPLAYS as u64;
    assert_eq!(cell.truncated.displays, dropped + 2);
    host.stop().await;
}

#[tokio::test]
async fn forged_frames_that_no_kernel_sends_end_its_cell() {
    let host = Host::start().await;
    for frame in [
        format!(
            "{{**shown('x'), 'data': {{'m' * {}: ''}}}}",
            MIME_TYPE_BYTES + 1
        ),
        format!(
            "{{**shown('x'), 'data': {{str(n): '' for n in range({})}}}}",
            MIME_TYPES + 1
        ),
        "{'type': 'exited', 'id': number(), 'status': -1}".to_owned(),
        "{'type': 'exited', 'id': number(), 'status': '0'}".to_owned(),
        "{**done(), 'id': -1}".to_owned(),
        "{**done(), 'id': 1e300}".to_owned(),
        "b'{\"type\":\"done\",\"id\":%d,\"id\":%d}' % (number(), number())".to_owned(),
        "b'{\"type\":\"display\",\"id\":%d,\"data\":{\"text/plain\":\"\\\\ud800\"}}' % number()"
            .to_owned(),
        "b'{\"type\":\"display\",\"id\":%d,\"data\":{\"text/plain\":\"\\xff\"}}' % number()"
            .to_owned(),
        "b'[' * 100_000".to_owned(),
        "{'type': 'ready'}".to_owned(),
        "{'type': 'restored', 'lost': []}".to_owned(),
        "{'type': 'snapshot', 'variables': '', 'lost': []}".to_owned(),
        "{'type': 'snapshot', 'variables': '', 'lost': ['x' * 65]}".to_owned(),
        "{'type': 'snapshot', 'variables': '', 'lost': ['x'] * 101}".to_owned(),
    ] {
        let (cage, mut kernel) = forger(&host).await;
        let cell = run(&mut kernel, &format!("say({frame})\ntime.sleep(1000)")).await;
        let expected = matches!(
            cell.end,
            CellEnd::Broken(Violation::Malformed(_) | Violation::OutOfTurn)
        );
        assert!(expected, "{frame}: {:?}", cell.end);
        is_killed(&kernel).await;
        within("destruction", cage.destroy()).await.unwrap();
    }
    host.stop().await;
}

#[tokio::test]
async fn what_is_printed_and_is_no_text_is_bounded_as_text() {
    let host = Host::start().await;
    let (_cage, mut kernel) = forger(&host).await;
    let cell = run(
        &mut kernel,
        "sys.stdout.buffer.write(b'\\xff' * 1_000_000)\n1",
    )
    .await;
    let most = usize::try_from(OUTPUT_BYTES).unwrap();
    assert!(
        cell.stdout.len() <= most + NOTICE_BYTES,
        "{}",
        cell.stdout.len()
    );
    assert!(cell.truncated.stdout > 1 << 20);
    host.stop().await;
}
