//! Ways of the tools to a server: an old one, by a proxy, over WebSocket.
//!
//! Owns: the server and the proxy that a test plays. Does not own: TLS and QUIC (see `doors`, `quic`). Start reading at any
//! test. Invariant: every wait has a deadline.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::program::{DEADLINE, Served, TempFolder, run, succeeded, text};

/// A server that speaks 3.1.1 only; the protocol levels of the CONNECT packets it got.
fn old_server(listener: TcpListener) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut levels = Vec::new();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().expect("a connection");
            socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            let mut connect = [0; 1024];
            let read = socket.read(&mut connect).expect("a CONNECT");
            // Fixed Header of two bytes, then the name: length, "MQTT".
            let level = connect[..read].get(8).copied().unwrap_or_default();
            levels.push(level);
            let code = u8::from(level != 4);
            socket
                .write_all(&[0x20, 2, 0, code])
                .expect("the client reads");
            // Until the client closes.
            socket.read_to_end(&mut Vec::new()).ok();
        }
        levels
    })
}

#[test]
fn a_server_of_old_is_spoken_to_in_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let server = old_server(listener);
    let output = run(&["pub", "-p", &port, "-t", "a", "-m", "b"]);
    succeeded(&output);
    assert!(text(&output.stderr).contains("trying again as 3.1.1"));
    assert_eq!(server.join().expect("it ends"), [5, 4]);
}

/// A SOCKS5 proxy that takes one connection without a login; returns its address.
fn socks_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a connection");
        let mut head = [0; 3];
        client.read_exact(&mut head).expect("a greeting");
        client.write_all(&[5, 0]).expect("an answer");
        let mut request = [0; 5];
        client.read_exact(&mut request).expect("a request");
        let mut rest = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut rest).expect("a name and a port");
        let (name, port) = rest.split_at(rest.len() - 2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        let name = String::from_utf8_lossy(name).into_owned();
        let mut server = std::net::TcpStream::connect((name.as_str(), port)).expect("the server");
        client
            .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .expect("an answer");
        let (mut from, mut to) = (
            client.try_clone().expect("a copy"),
            server.try_clone().expect("a copy"),
        );
        std::thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
        std::io::copy(&mut server, &mut client).ok();
    });
    address
}

#[test]
fn a_message_goes_by_a_socks5_proxy() {
    let served = Served::in_memory();
    let proxy = format!("socks5h://{}", socks_proxy());
    let output = served.tool(
        "pub",
        &[
            "-h",
            "localhost",
            "--proxy",
            &proxy,
            "-t",
            "a",
            "-m",
            "x",
            "-r",
            "-q",
            "1",
        ],
    );
    succeeded(&output);
    let output = served.tool("sub", &["-t", "a", "-C", "1", "-W", "20"]);
    assert_eq!(text(&output.stdout), "x\n");
    let output = served.tool("pub", &["--proxy", "http://a", "-t", "a", "-m", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("socks5h://"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_tools_go_over_websocket() {
    let folder = TempFolder::new();
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntransport = \"websocket\"\n";
    let path = folder.write("vencejo.toml", listener);
    let args = ["-c", &path, "--shards", "1", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let mut words = served.greeting.split_whitespace();
    let url = words.find(|word| word.starts_with("ws://")).expect("a URL");
    let bare = url.trim_end_matches("/mqtt");
    for url in [url, bare] {
        let sent = run(&["pub", "-L", url, "-t", "a", "-m", "x", "-r", "-q", "1"]);
        succeeded(&sent);
    }
    let heard = run(&["sub", "-L", url, "-t", "a", "-C", "1", "-W", "20"]);
    assert_eq!(text(&heard.stdout), "x\n");
}
