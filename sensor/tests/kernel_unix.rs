//! Requests on Unix sockets against a real server. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use requests::{Server, config, name_of, own_name, published};

fn nginx(directory: &Path) -> Server {
    let at_its_socket = r#"
        listen unix:DIRECTORY/socket;
        location /missing { return 404; }
        location / { return 200 "ok"; }"#;
    Server::nginx(directory, "", at_its_socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_a_unix_socket_are_those_of_its_server() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let socket = directory.path().join("socket");
    let work = move || {
        let urls = (0..50).flat_map(|number| {
            let path = if number % 5 == 0 { "missing" } else { "users" };
            let url = format!("http://localhost/{path}/{number}");
            ["-o".to_owned(), "/dev/null".to_owned(), url]
        });
        let mut curl = Command::new("curl");
        curl.arg("-sS").arg("--unix-socket").arg(&socket).args(urls);
        assert!(curl.status().unwrap().success());
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &name_of(&server.child), work).await;
    let expected = BTreeMap::from([(("GET /users/{id}", 2), 40), (("other", 4), 10)]);
    assert_eq!(found.routes(), expected, "{:?}", found.losses);
    assert_eq!(found.requests, 50);
    found.check_whole();
    assert!(
        found.losses.values().all(|lost| *lost == 0),
        "{:?}",
        found.losses
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_sockets_is_no_service() {
    let _turn = requests::turn().await;
    let work = || {
        let (mut asks, mut answers) = UnixStream::pair().unwrap();
        for _ in 0..20 {
            for (from, to) in [(true, "request"), (false, "answer")] {
                let (write, read) = match from {
                    true => (&mut asks, &mut answers),
                    false => (&mut answers, &mut asks),
                };
                write.write_all(to.as_bytes()).unwrap();
                read.read_exact(&mut vec![0; to.len()]).unwrap();
            }
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    assert_eq!(found.requests, 0);
}
