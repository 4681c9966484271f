//! The sandbox as its inmates see it.

use std::time::Instant;

use loadtest::cluster::Member;

use crate::stack::{printed, shared, succeed, value};

#[tokio::test]
async fn a_session_has_no_capabilities_and_a_seccomp_filter() {
    let stack = shared().await;
    let session = stack.session();
    for code in [
        "print(open('/proc/self/status').read())",
        "!cat /proc/self/status",
    ] {
        let status = printed(&session, code).await;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} is missing in {status}"))
                .trim()
                .to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set} with {code}");
        }
        assert_eq!(
            (field("NoNewPrivs:"), field("Seccomp:")),
            ("1".to_owned(), "2".to_owned())
        );
        assert!(
            !field("Uid:").split_whitespace().any(|uid| uid == "0"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_session_holds_only_its_own_files_open() {
    let stack = shared().await;
    let code = "import os\n\
                def target(fd):\n    \
                    try:\n        return os.readlink(f'/proc/self/fd/{fd}')\n    \
                    except OSError:\n        return None\n\
                open_files = {int(fd): target(fd) for fd in os.listdir('/proc/self/fd')}\n\
                print({fd: t for fd, t in open_files.items() if fd > 3 and t})";
    assert_eq!(printed(&stack.session(), code).await, "{}\n");
}

#[tokio::test]
async fn there_is_no_way_out() {
    let stack = shared().await;
    let session = stack.session();
    let (ingress, _) = stack.addresses(0).unwrap();
    let code = format!(
        "import socket\n\
         def reach(host, port):\n    \
             try:\n        socket.create_connection((host, port), timeout=3).close()\n        \
                 return True\n    \
             except OSError:\n        return False\n\
         [a for a in [('1.1.1.1', 53), ('169.254.169.254', 80), ('127.0.0.1', {}), \
         ('10.0.0.1', 80), ('::1', 80), ('example.com', 80)] if reach(*a)]",
        ingress.port()
    );
    let started = Instant::now();
    assert_eq!(value(&session, &code).await, serde_json::json!([]));
    assert!(
        started.elapsed().as_secs() < 10,
        "refused quickly, not by a timeout"
    );
    let links = printed(&session, "print(open('/proc/net/dev').read())").await;
    let links: Vec<_> = links
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    assert!(
        links.iter().all(|(name, _)| name.trim() == "lo"),
        "{links:?}"
    );
}

#[tokio::test]
async fn a_failed_download_by_code_is_named_quickly() {
    let stack = shared().await;
    let code = "import urllib.request, urllib.error\n\
                try:\n    urllib.request.urlopen('http://example.com/', timeout=20)\n\
                except urllib.error.URLError:\n    print('URLError')";
    let started = Instant::now();
    assert_eq!(printed(&stack.session(), code).await, "URLError\n");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[tokio::test]
async fn local_sockets_work() {
    let stack = shared().await;
    let code = "import socket\n\
                server = socket.create_server(('127.0.0.1', 0))\n\
                peer = socket.create_connection(server.getsockname())\n\
                a, b = socket.socketpair()\na.send(b'x')\nb.recv(1)";
    assert_eq!(value(&stack.session(), code).await, "b'x'");
}

#[tokio::test]
async fn no_host_path_shows_in_the_mounts() {
    let stack = shared().await;
    let mounts = printed(
        &stack.session(),
        "print(open('/proc/self/mountinfo').read())",
    )
    .await;
    for line in mounts.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<_> = line.split(' ').collect();
        let (root, point) = (fields[3], fields[4]);
        let device = point.starts_with("/dev/") && root.matches('/').count() == 1;
        let proc = point.starts_with("/proc");
        // The session's files and packages, and what the kernel tells it, are directories of filesystems of their
        // own, wherever the host has these.
        let own = [
            ("/files", "/mnt/data"),
            ("/packages", "/home/session/.local"),
            ("/sys", "/sys"),
        ]
        .contains(&(root, point));
        assert!(root == "/" || device || proc || own, "{line}");
    }
    for host in [
        stack.directory().to_str().unwrap(),
        "erofs",
        "target/release",
        "/root",
        ".hearth",
    ] {
        let shown = mounts.lines().filter(|line| line.contains(host));
        // The type of the image's filesystem may be told, its file may not.
        assert_eq!(
            shown.filter(|line| !line.contains(" - erofs ")).count(),
            0,
            "{host}\n{mounts}"
        );
    }
}

#[tokio::test]
async fn the_image_cannot_be_written_and_private_places_can() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\n\
                def writable(d):\n    \
                    try:\n        open(d + '/probe', 'w').close()\n        return True\n    \
                    except OSError:\n        return False\n";
    succeed(&session, code).await;
    let closed = "[d for d in ['/', '/usr', '/etc', '/usr/lib', '/proc', '/sys', '/dev', '/mnt'] \
                  if writable(d)]";
    assert_eq!(value(&session, closed).await, serde_json::json!([]));
    let open = "all(map(writable, ['/tmp', '/dev/shm', '/mnt/data', os.getcwd(), \
                os.path.expanduser('~')]))";
    assert_eq!(value(&session, open).await, "True");
}

#[tokio::test]
async fn dangerous_system_calls_are_refused() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import ctypes, errno, os\n\
                libc = ctypes.CDLL(None, use_errno=True)\n\
                def call(name, *arguments):\n    \
                    ctypes.set_errno(0)\n    \
                    r = getattr(libc, name)(*arguments)\n    \
                    return errno.errorcode.get(ctypes.get_errno(), r)\n\
                {n: call(n, *a) for n, a in {\n  \
                'mount': (b'none', b'/tmp', b'tmpfs', 0, None), 'umount2': (b'/mnt/data', 0),\n  \
                'unshare': (0x10000000,), 'setns': (0, 0), 'ptrace': (16, 1, 0, 0),\n  \
                'chroot': (b'/tmp',), 'swapon': (b'/tmp', 0), 'sethostname': (b'x', 1),\n  \
                'reboot': (0,), 'pivot_root': (b'/', b'/')}.items() if hasattr(libc, n)}";
    let answers = value(&session, code).await;
    let answers = answers.as_str().unwrap();
    let refused = answers.matches("'EPERM'").count() + answers.matches("'ENOSYS'").count();
    assert_eq!(refused, answers.matches(':').count(), "{answers}");
    let families = "import socket\n\
                    def opens(family, kind):\n    \
                        try:\n        socket.socket(family, kind).close()\n        return True\n    \
                        except OSError:\n        return False\n\
                    [f for f, k in [(16, 3), (17, 3), (38, 5), (40, 1)] if opens(f, k)]";
    assert_eq!(value(&session, families).await, serde_json::json!([]));
}

#[tokio::test]
async fn sessions_do_not_see_each_other() {
    let stack = shared().await;
    let (first, second) = (stack.session(), stack.session());
    let code = "import subprocess\n\
                open('/mnt/data/secret.txt', 'w').write('s')\n\
                open('/tmp/secret.txt', 'w').write('s')\n\
                open('/dev/shm/secret.txt', 'w').write('s')\n\
                child = subprocess.Popen(['sleep', '987654'])\nsecret = 1";
    succeed(&first, code).await;
    let seen = "import glob, os\n\
                def line(pid):\n    \
                    try:\n        return open(f'/proc/{pid}/cmdline').read()\n    \
                    except OSError:\n        return ''\n\
                [p for p in os.listdir('/proc') if p.isdigit() and '987654' in line(p)] + \
                [f for d in ['/mnt/data', '/tmp', '/dev/shm'] for f in glob.glob(d + '/secret*')]";
    assert_eq!(value(&second, seen).await, serde_json::json!([]));
    assert_eq!(value(&second, "'secret' in globals()").await, "False");
    assert_eq!(value(&first, "child.poll() is None").await, "True");
}

#[tokio::test]
async fn what_one_session_was_told_is_not_in_the_memory_of_another() {
    let stack = shared().await;
    let (first, second) = (stack.session(), stack.session());
    let canary = format!("canary-{}", ulid::Ulid::new());
    succeed(&first, &format!("told = '{canary}'")).await;
    // The searcher is not told the canary itself: only what its digits add up to.
    let sum: u32 = canary.bytes().map(u32::from).sum();
    let code = format!(
        "import re\nfound = set()\nmemory = open('/proc/self/mem', 'rb', 0)\n\
         for line in open('/proc/self/maps'):\n    \
             m = re.match(r'([0-9a-f]+)-([0-9a-f]+) r', line)\n    \
             if not m: continue\n    \
             start, end = int(m[1], 16), int(m[2], 16)\n    \
             while start < end:\n        \
                 try:\n            memory.seek(start); data = memory.read(min(end - start, 1 << 20))\n        \
                 except (OSError, OverflowError, ValueError): break\n        \
                 start += max(len(data) - 64, 1) if len(data) == 1 << 20 else len(data) or end\n        \
                 found.update(s for s in re.findall(b'canary-[0-9A-Z]{{26}}', data) if sum(s) == {sum})\n\
         len(found)"
    );
    assert_eq!(value(&second, &code).await, 0);
    assert_eq!(
        value(&first, &code).await,
        1,
        "the search finds what is there"
    );
}

#[tokio::test]
async fn the_environment_holds_no_secret_and_process_one_is_closed() {
    let stack = shared().await;
    let session = stack.session();
    let environment = printed(&session, "import os\nprint(dict(os.environ))").await;
    for word in ["HEARTH", "NATS", "TOKEN", "PASSWORD", "KEY", "hearth-"] {
        assert!(!environment.contains(word), "{word} in {environment}");
    }
    let code = "def reads(path):\n    \
                    try:\n        return len(open(path, 'rb').read(1))\n    \
                    except OSError:\n        return 0\n\
                sum(reads('/proc/1/' + f) for f in ['environ', 'mem', 'maps'])";
    assert_eq!(value(&session, code).await, 0);
    let pids = "[p for p in os.listdir('/proc') if p.isdigit()]";
    assert!(
        value(&session, &format!("len({pids})"))
            .await
            .as_u64()
            .unwrap()
            <= 3
    );
}

#[tokio::test]
async fn no_user_code_output_or_file_name_is_logged() {
    let stack = shared().await;
    let session = stack.session();
    let canary = format!("canary-{}", ulid::Ulid::new());
    succeed(&session, &format!("print('{canary}')")).await;
    session
        .execute(&format!("raise ValueError('{canary}')"))
        .await
        .unwrap();
    session
        .upload(&format!("{canary}.txt"), canary.as_bytes())
        .await
        .unwrap();
    session
        .download(&format!("{canary}-none.txt"))
        .await
        .unwrap_err();
    for member in [Member::Nats(0), Member::Ingress(0), Member::Worker(0)] {
        let log = stack.log(member).unwrap();
        assert!(!log.contains(&canary), "{member}");
        assert!(!log.contains(stack.token()), "{member} logs tokens");
    }
}
