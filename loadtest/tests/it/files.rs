//! The file area between caller and code, on every kind of object store.

use reqwest::Method;
use serde_json::json;

use crate::{
    object_store::{ObjectStore, on_every_object_store},
    stack::{answer, refusal, shared_on, succeed, value},
};

on_every_object_store! {
    an_uploaded_file_is_there_for_code_and_callers,
    a_file_written_by_code_can_be_listed_and_downloaded,
    a_list_has_the_old_envelope_with_numbered_ids_and_seven_digit_times,
    an_upload_replaces_a_file_of_the_same_name,
    an_empty_file_is_a_file,
    names_with_spaces_signs_and_letters_of_all_kinds_work,
    a_missing_file_is_404,
    a_directory_is_no_file_to_download,
    every_spelling_of_download_gives_the_bytes_with_their_type,
    one_file_can_be_described_and_deleted,
    file_operations_do_not_wait_for_a_running_cell,
    code_may_change_and_delete_what_was_uploaded,
}

async fn an_uploaded_file_is_there_for_code_and_callers(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    let stored = session
        .upload("important.json", b"{\"d\": [1, 10, -1541]}")
        .await
        .unwrap();
    assert_eq!(
        (stored.filename.as_str(), stored.size),
        ("important.json", 21)
    );
    let code = "import json\nsum(json.load(open('/mnt/data/important.json'))['d'])";
    assert_eq!(value(&session, code).await, -1530);
    assert_eq!(
        session.download("important.json").await.unwrap(),
        b"{\"d\": [1, 10, -1541]}"
    );
}

async fn a_file_written_by_code_can_be_listed_and_downloaded(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    let code = "import os\nos.makedirs('/mnt/data/sub/deep')\n\
                open('/mnt/data/b.txt', 'w').write('123')\n\
                open('/mnt/data/sub/deep/x.bin', 'wb').write(bytes(range(256)))";
    succeed(&session, code).await;
    session.upload("a.txt", b"12345").await.unwrap();
    let files = session.list().await.unwrap();
    let sizes: Vec<_> = files
        .iter()
        .map(|file| (file.filename.as_str(), file.size))
        .collect();
    // Files only, those of directories by their relative paths.
    assert_eq!(sizes, [("a.txt", 5), ("b.txt", 3), ("sub/deep/x.bin", 256)]);
    assert_eq!(session.download("b.txt").await.unwrap(), b"123");
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(session.download("sub/deep/x.bin").await.unwrap(), binary);
    let escaped = session
        .request(Method::GET, "files/content/sub%2Fdeep%2Fx.bin")
        .send()
        .await;
    assert_eq!(escaped.unwrap().bytes().await.unwrap(), binary);
}

async fn a_list_has_the_old_envelope_with_numbered_ids_and_seven_digit_times(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    let (status, empty) = answer(session.request(Method::GET, "files")).await;
    assert_eq!(
        (status.as_u16(), empty),
        (200, json!({ "$id": "1", "value": [] }))
    );
    session.upload("a.txt", b"12345").await.unwrap();
    session.upload("b.txt", b"1").await.unwrap();
    let (_, listed) = answer(session.request(Method::GET, "files")).await;
    let time = |index: usize| {
        let time = listed["value"][index]["properties"]["lastModifiedTime"]
            .as_str()
            .unwrap();
        let form: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(form, "0000-00-00T00:00:00.0000000Z", "{time}");
        time.to_owned()
    };
    let (first, second) = (time(0), time(1));
    let file = |id: u32, name: &str, size: u32, time: String| {
        json!({ "$id": id.to_string(), "properties": { "$id": (id + 1).to_string(),
            "filename": name, "size": size, "lastModifiedTime": time } })
    };
    let expected = json!({ "$id": "1",
        "value": [file(2, "a.txt", 5, first), file(4, "b.txt", 1, second)] });
    assert_eq!(listed, expected);
}

async fn an_upload_replaces_a_file_of_the_same_name(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    session.upload("ow.txt", b"a longer content").await.unwrap();
    assert_eq!(session.upload("ow.txt", b"short").await.unwrap().size, 5);
    assert_eq!(session.download("ow.txt").await.unwrap(), b"short");
    assert_eq!(session.list().await.unwrap().len(), 1);
}

async fn an_empty_file_is_a_file(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    assert_eq!(session.upload("empty", b"").await.unwrap().size, 0);
    assert_eq!(session.download("empty").await.unwrap(), b"");
}

async fn names_with_spaces_signs_and_letters_of_all_kinds_work(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    for name in [
        "my file (1) é日.txt",
        "a&b=c;d,e#f%g^h@i$.txt",
        "content",
        "-rf",
        ".hidden",
    ] {
        assert_eq!(session.upload(name, b"u").await.unwrap().filename, name);
        assert_eq!(session.download(name).await.unwrap(), b"u", "{name}");
        let listed = session.list().await.unwrap();
        assert!(listed.iter().any(|file| file.filename == name), "{name}");
        session.delete_file(name).await.unwrap();
    }
    assert_eq!(session.list().await.unwrap(), []);
}

async fn a_missing_file_is_404(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    assert_eq!(refusal(session.download("nope.txt").await).0, 404);
    assert_eq!(refusal(session.download("no/such/dir.txt").await).0, 404);
    assert_eq!(refusal(session.delete_file("nope.txt").await).0, 404);
    let (status, answer) = answer(session.request(Method::GET, "files/nope.txt")).await;
    assert_eq!(status, 404);
    assert!(answer["error"]["code"].is_string() && answer["error"]["message"].is_string());
}

async fn a_directory_is_no_file_to_download(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    succeed(&session, "import os\nos.mkdir('/mnt/data/dir')").await;
    let (status, code) = refusal(session.download("dir").await);
    assert_eq!(
        (status, code.as_str()),
        (400, "SessionRequestValidationFailed")
    );
}

async fn every_spelling_of_download_gives_the_bytes_with_their_type(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    session.upload("t.csv", b"a,b\n").await.unwrap();
    session.upload("t.unknown-kind", b"?").await.unwrap();
    for path in ["files/content/t.csv", "file/content/t.csv"] {
        let response = session.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let kind = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(kind.starts_with("text/csv"), "{kind}");
        assert_eq!(response.headers()["accept-ranges"], "bytes");
        let modified = response.headers()["last-modified"].to_str().unwrap();
        assert!(modified.ends_with(" GMT"), "{modified}");
        assert_eq!(
            response.bytes().await.unwrap(),
            b"a,b\n".as_slice(),
            "{path}"
        );
    }
    let response = session
        .request(Method::GET, "files/content/t.unknown-kind")
        .send()
        .await;
    assert_eq!(
        response.unwrap().headers()["content-type"],
        "application/octet-stream"
    );
}

async fn one_file_can_be_described_and_deleted(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    session.upload("one.txt", b"1").await.unwrap();
    let (status, described) = answer(session.request(Method::GET, "files/one.txt")).await;
    assert_eq!(status, 200, "{described}");
    let properties = &described["value"][0]["properties"];
    assert_eq!(
        (&properties["filename"], &properties["size"]),
        (&json!("one.txt"), &json!(1))
    );
    let (status, deleted) = answer(session.request(Method::DELETE, "files/one.txt")).await;
    assert_eq!(
        (status.as_u16(), &deleted["message"]),
        (200, &json!("file deleted successfully"))
    );
    assert_eq!(
        value(&session, "import os\nos.listdir('/mnt/data')").await,
        json!([])
    );
}

async fn file_operations_do_not_wait_for_a_running_cell(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    succeed(&session, "import os, time").await;
    let waiting = "while not os.path.exists('/mnt/data/go'):\n    time.sleep(0.01)\n'seen'";
    let (executed, stored) = tokio::join!(session.execute_within(60, waiting), async {
        session.list().await.unwrap();
        session.upload("go", b"").await
    });
    stored.unwrap();
    assert_eq!(executed.unwrap().result, "'seen'");
}

async fn code_may_change_and_delete_what_was_uploaded(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    session.upload("mine.txt", b"1").await.unwrap();
    session.upload("other.txt", b"1").await.unwrap();
    let code =
        "import os\nopen('/mnt/data/mine.txt', 'a').write('2')\nos.remove('/mnt/data/other.txt')";
    succeed(&session, code).await;
    assert_eq!(session.download("mine.txt").await.unwrap(), b"12");
    assert_eq!(refusal(session.download("other.txt").await).0, 404);
}
