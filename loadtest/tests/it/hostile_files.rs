//! File names and file trees that try to lead out of `/mnt/data`.

use std::time::Duration;

use loadtest::{
    client::API_VERSION,
    cluster::{Cluster, Member},
    multipart::Multipart,
    raw::RawRequest,
};
use reqwest::Method;

use crate::stack::{answer, refusal, refused, shared, stored, succeed, value};

#[tokio::test]
async fn a_file_of_holes_is_refused_instead_of_sent() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\nos.truncate(os.open('/mnt/data/x', os.O_CREAT | os.O_RDWR), 10 << 40)";
    // At once, while it must be read, and when it has lain there long enough to be sent from its log.
    for code in [code, "import time; time.sleep(1)"] {
        succeed(&session, code).await;
        let request = session.request(Method::GET, "files/content/x");
        refused(request, 413, "RequestTooLarge").await;
    }
}

#[tokio::test]
async fn a_listing_that_is_too_long_for_one_message_is_complete() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\n\
                for n in range(8000): open(f'/mnt/data/{n:04}' + 'x' * 100, 'w').close()";
    succeed(&session, code).await;
    assert_eq!(session.list().await.unwrap().len(), 8000);
}

/// Some meant something to this platform once, others do elsewhere.
#[tokio::test]
async fn every_name_that_a_file_can_have_outlives_its_worker() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let uploaded = [".hearth-upload-zz", "files", "lost+found", ".wh.x"];
    for name in uploaded {
        session.upload(name, name.as_bytes()).await.unwrap();
    }
    let written = [".hearth-upload-1", "uploads", "x (deleted)"];
    let code = format!("for name in {written:?}: open('/mnt/data/' + name, 'w').write(name)");
    succeed(&session, &code).await;
    let listed = session.list().await.unwrap().into_iter();
    let mut all = [uploaded.as_slice(), &written].concat();
    all.sort_unstable();
    assert_eq!(listed.map(|file| file.filename).collect::<Vec<_>>(), all);
    cluster.kill(Member::Worker(0)).await.unwrap();
    for name in all {
        assert_eq!(stored(&session, name).await, name.as_bytes());
    }
}

#[tokio::test]
async fn names_that_lead_out_are_refused_and_store_nothing() {
    let stack = shared().await;
    let session = stack.session();
    let long = "n".repeat(300);
    let deep = "d/".repeat(600) + "x";
    let names: [&[u8]; 16] = [
        b"../evil.txt",
        b"a/../../evil.txt",
        b"/etc/evil.txt",
        b"/mnt/data/../evil.txt",
        b"/mnt/database/evil.txt",
        b"..",
        b".",
        b"/",
        b"/mnt/data/",
        b"./evil.txt",
        b"a//evil.txt",
        b"nul\0evil.txt",
        b"line\x01evil.txt",
        b"a/./evil.txt",
        long.as_bytes(),
        deep.as_bytes(),
    ];
    for name in names {
        let shown = String::from_utf8_lossy(name).into_owned();
        let mut headers = b"Content-Disposition: form-data; name=\"file\"; filename=\"".to_vec();
        headers.extend_from_slice(name);
        headers.extend_from_slice(b"\"\r\n");
        let body = Multipart::new("B").part_with_headers(&headers, b"evil");
        let request = session
            .request(Method::POST, "files/upload")
            .header("content-type", body.content_type())
            .body(body.into_body());
        let (status, answer) = answer(request).await;
        assert_eq!(status, 400, "{shown:?} {answer}");
        assert!(answer["error"]["code"].is_string(), "{shown:?} {answer}");
    }
    assert_eq!(session.list().await.unwrap(), []);
    let code = "import glob\n\
                [found for place in ('/mnt', '/tmp', '/home', '/etc') \
                 for found in glob.glob(place + '/**/*evil*', recursive=True)]";
    assert_eq!(value(&session, code).await, serde_json::json!([]));
}

#[tokio::test]
async fn downloads_and_deletes_cannot_lead_out() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "open('/tmp/out.txt', 'w').write('out')").await;
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        session.identifier()
    );
    for path in [
        "../../tmp/out.txt",
        "..%2f..%2ftmp%2fout.txt",
        "%2e%2e/%2e%2e/tmp/out.txt",
        "%2e%2e%2f%2e%2e%2ftmp%2fout.txt",
        "%2ftmp%2fout.txt",
        "%2Fetc%2Fpasswd",
        "a/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5ctmp%5cout.txt",
        "x%00.txt",
        "%ff%fe",
    ] {
        for (method, prefix) in [
            ("GET", "files/content"),
            ("DELETE", "files"),
            ("GET", "files"),
        ] {
            let target = format!("{}/{prefix}/{path}?{query}", stack.pool());
            let request = RawRequest::new(method, &target).bearer(stack.token());
            let response = request.send(stack.addresses(0).unwrap().0).await.unwrap();
            assert!(
                matches!(response.status, 400 | 404 | 405),
                "{target} {}",
                response.status
            );
            assert!(
                response.json().unwrap()["error"]["code"].is_string(),
                "{target}"
            );
        }
    }
    assert_eq!(
        value(&session, "open('/tmp/out.txt').read()").await,
        "'out'"
    );
}

#[tokio::test]
async fn links_out_of_the_data_directory_are_not_followed() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\n\
                open('/tmp/out.txt', 'w').write('out')\n\
                os.symlink('/etc/passwd', '/mnt/data/passwd')\n\
                os.symlink('/tmp/out.txt', '/mnt/data/out.txt')\n\
                os.symlink('../../tmp/out.txt', '/mnt/data/relative.txt')\n\
                os.symlink('/etc', '/mnt/data/etc')\n\
                os.symlink('/', '/mnt/data/root')\n\
                os.symlink('/proc/self/root', '/mnt/data/magic')\n\
                os.symlink('nowhere', '/mnt/data/dangling')";
    succeed(&session, code).await;
    for name in [
        "passwd",
        "out.txt",
        "relative.txt",
        "etc/passwd",
        "root/etc/passwd",
        "magic/etc/passwd",
        "dangling",
    ] {
        let (status, _) = refusal(session.download(name).await);
        assert!(matches!(status, 400 | 404), "{name} {status}");
    }
    for name in ["etc/evil.txt", "root/tmp/evil.txt", "magic/tmp/evil.txt"] {
        let (status, _) = refusal(session.upload(name, b"evil").await);
        assert!(matches!(status, 400 | 404 | 409), "{name} {status}");
    }
    assert!(!std::path::Path::new("/etc/evil.txt").exists());
    assert!(!std::path::Path::new("/tmp/evil.txt").exists());
    let names = session.list().await.unwrap();
    assert!(
        !names.iter().any(|file| file.filename.contains('/')),
        "{names:?}"
    );
}

#[tokio::test]
async fn an_upload_over_a_link_replaces_the_link_and_not_its_target() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\nopen('/tmp/target.txt', 'w').write('target')\n\
                os.symlink('/tmp/target.txt', '/mnt/data/link.txt')";
    succeed(&session, code).await;
    session.upload("link.txt", b"uploaded").await.unwrap();
    assert_eq!(
        value(&session, "open('/tmp/target.txt').read()").await,
        "'target'"
    );
    assert_eq!(
        value(&session, "os.path.islink('/mnt/data/link.txt')").await,
        "False"
    );
    assert_eq!(session.download("link.txt").await.unwrap(), b"uploaded");
}

#[tokio::test]
async fn deleting_a_link_leaves_its_target() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\nopen('/tmp/target.txt', 'w').write('target')\n\
                os.symlink('/tmp/target.txt', '/mnt/data/link.txt')\n\
                os.symlink('/tmp', '/mnt/data/dir')";
    succeed(&session, code).await;
    // Whether a link may be deleted is the server's choice; its target never may.
    drop(session.delete_file("link.txt").await);
    drop(session.delete_file("dir/target.txt").await);
    assert_eq!(
        value(&session, "open('/tmp/target.txt').read()").await,
        "'target'"
    );
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os, subprocess, sys\n\
                os.makedirs('/mnt/data/real')\nos.makedirs('/tmp/out')\n\
                open('/mnt/data/swap.py', 'w').write('''\n\
import os\n\
os.symlink('/tmp/out', '/mnt/data/link')\n\
while True:\n\
    os.rename('/mnt/data/real', '/mnt/data/d')\n\
    os.rename('/mnt/data/d', '/mnt/data/real')\n\
    os.rename('/mnt/data/link', '/mnt/data/d')\n\
    os.rename('/mnt/data/d', '/mnt/data/link')\n\
''')\n\
                swapper = subprocess.Popen([sys.executable, '/mnt/data/swap.py'])";
    succeed(&session, code).await;
    for _ in 0..200 {
        // Some land in the real directory and some are refused; none may land beyond the link.
        drop(session.upload("d/x.txt", b"evil").await);
    }
    let code = "swapper.kill(); swapper.wait()\nos.listdir('/tmp/out')";
    assert_eq!(value(&session, code).await, serde_json::json!([]));
}

#[tokio::test]
async fn loops_of_links_do_not_keep_a_list_from_ending() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os\nos.makedirs('/mnt/data/a/b')\n\
                os.symlink('.', '/mnt/data/self')\nos.symlink('../..', '/mnt/data/a/b/up')\n\
                os.symlink('one', '/mnt/data/two')\nos.symlink('two', '/mnt/data/one')\n\
                open('/mnt/data/a/b/x.txt', 'w').write('x')";
    succeed(&session, code).await;
    let listed = tokio::time::timeout(Duration::from_secs(10), session.list())
        .await
        .unwrap();
    let mut names: Vec<_> = listed
        .unwrap()
        .into_iter()
        .map(|file| file.filename)
        .collect();
    names.retain(|name| !matches!(name.as_str(), "self" | "one" | "two" | "a/b/up"));
    assert!(names.is_empty() || names == ["a/b/x.txt"], "{names:?}");
    refusal(session.download("one").await);
}

#[tokio::test]
async fn pipes_sockets_and_devices_are_no_files_and_block_nothing() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os, socket\nos.mkfifo('/mnt/data/pipe')\n\
                s = socket.socket(socket.AF_UNIX)\ns.bind('/mnt/data/socket')\n\
                try:\n    os.mknod('/mnt/data/device', 0o666 | 0o020000, os.makedev(1, 3))\n\
                except OSError as e:\n    print(e.errno)";
    assert_eq!(
        succeed(&session, code).await.stdout,
        "1\n",
        "mknod of a device is EPERM"
    );
    for name in ["pipe", "socket"] {
        let answer = tokio::time::timeout(Duration::from_secs(10), session.download(name)).await;
        let (status, _) = refusal(answer.unwrap());
        assert!(matches!(status, 400 | 404), "{name} {status}");
    }
    let names: Vec<_> = session
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|file| file.filename)
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn odd_names_made_by_code_do_not_break_a_list() {
    let stack = shared().await;
    let session = stack.session();
    let code = "for name in [b'new\\nline', b'not \\xff utf-8', b'quote\"', b'back\\\\slash', b'n' * 255]:\n    \
                    open(b'/mnt/data/' + name, 'w').write('x')";
    succeed(&session, code).await;
    let names: Vec<_> = session
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|file| file.filename)
        .collect();
    for name in ["quote\"", "back\\slash", &"n".repeat(255)] {
        assert!(
            names.iter().any(|listed| listed == name),
            "{name} is missing in {names:?}"
        );
        assert_eq!(session.download(name).await.unwrap(), b"x", "{name}");
    }
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_read_ends() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import subprocess\n\
                p = subprocess.Popen('yes > /mnt/data/grows', shell=True, start_new_session=True)";
    succeed(&session, code).await;
    succeed(
        &session,
        "import os\nwhile not os.path.exists('/mnt/data/grows'): pass",
    )
    .await;
    let read = tokio::time::timeout(Duration::from_secs(60), session.download("grows")).await;
    // Cut off or whole: what matters is that it ends and that the session lives.
    drop(read.expect("the download ends"));
    succeed(
        &session,
        "import os, signal\nos.killpg(p.pid, signal.SIGKILL)",
    )
    .await;
}

#[tokio::test]
async fn thousands_of_files_are_listed() {
    let stack = shared().await;
    let session = stack.session();
    succeed(
        &session,
        "for n in range(3000): open(f'/mnt/data/{n:04}', 'w').close()",
    )
    .await;
    let names: Vec<_> = session
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|file| file.filename)
        .collect();
    assert_eq!(
        (names.len(), names[0].as_str(), names[2999].as_str()),
        (3000, "0000", "2999")
    );
}
