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

use requests::{Server, config, free_port, name_of, own_name, published, wait_for};

const NGINX: &str = r#"
daemon off; master_process off; error_log stderr emerg; pid DIRECTORY/pid;
events {}
http {
    access_log off;
    client_body_temp_path DIRECTORY/1; proxy_temp_path DIRECTORY/2; fastcgi_temp_path DIRECTORY/3;
    uwsgi_temp_path DIRECTORY/4; scgi_temp_path DIRECTORY/5;
    server {
        listen unix:DIRECTORY/socket; listen 127.0.0.1:PORT;
        location /missing { return 404; }
        location / { return 200 "ok"; }
    }
}
"#;

fn nginx(directory: &Path) -> Server {
    let port = free_port();
    let configuration = directory.join("nginx.conf");
    let text = NGINX
        .replace("DIRECTORY", &directory.display().to_string())
        .replace("PORT", &port.to_string());
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new("sh");
    let script = format!("echo {port}; exec nginx -c {}", configuration.display());
    command.args(["-c", &script]);
    let server = Server::start(command);
    wait_for(server.address);
    server
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
