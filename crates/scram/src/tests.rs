//! Both sides against the standard's own example, against each other, and against everything else.

use proptest::prelude::*;

use super::*;

/// The example of RFC 7677, section 3.
const USER: &str = "user";
const PASSWORD: &str = "pencil";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn iterations(count: u32) -> Iterations {
    Iterations::new(count).expect("is within bounds")
}

fn keys() -> Keys {
    let salt = data_encoding::BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==");
    Keys::derive(PASSWORD, &salt.expect("base64"), iterations(4096)).expect("a password")
}

fn first(message: &str) -> Result<ClientFirst, Malformed> {
    ClientFirst::parse(message.as_bytes())
}

/// A server that has answered [`CLIENT_FIRST`].
fn server() -> ServerExchange {
    ServerExchange::begin(
        first(CLIENT_FIRST).expect("a message"),
        keys(),
        SERVER_NONCE,
    )
    .0
}

/// A client that has begun.
fn client() -> ClientExchange {
    ClientExchange::begin(USER, PASSWORD, CLIENT_NONCE).0
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn both_sides_say_what_rfc_7677_says() {
    let (mut client, said) = ClientExchange::begin(USER, PASSWORD, CLIENT_NONCE);
    assert_eq!(said, bytes(CLIENT_FIRST));
    let (server, said) = ServerExchange::begin(
        first(CLIENT_FIRST).expect("a message"),
        keys(),
        SERVER_NONCE,
    );
    assert_eq!(said, bytes(SERVER_FIRST));
    assert_eq!(server.user(), USER);
    assert_eq!(
        client.on_server_first(SERVER_FIRST.as_bytes()),
        Ok(bytes(CLIENT_FINAL))
    );
    assert_eq!(
        server.finish(CLIENT_FINAL.as_bytes()),
        Ok(bytes(SERVER_FINAL))
    );
    assert_eq!(client.on_server_final(SERVER_FINAL.as_bytes()), Ok(()));
}

#[test]
fn wrong_password_and_nobody_are_told_alike() {
    for keys in [keys(), Keys::of_nobody(&[7; 16], iterations(4096), [1; 32])] {
        let (mut client, said) = ClientExchange::begin("a=b,c", "pencils", "abc");
        let client_first = ClientFirst::parse(&said).expect("a message");
        assert_eq!(client_first.user(), "a=b,c");
        let (server, said) = ServerExchange::begin(client_first, keys, "def");
        let said = client.on_server_first(&said).expect("a message");
        assert_eq!(server.finish(&said), Err(WrongProof::Password));
    }
}

/// A server that has nothing of the password cannot pretend to be the one that has.
#[test]
fn server_that_does_not_know_the_user_is_refused() {
    let wrong = format!("v={}=", &"A".repeat(43));
    for (said, expected) in [
        (&*wrong, FalseServer::Signature),
        (
            "e=invalid-proof",
            FalseServer::Malformed(Malformed::Grammar),
        ),
        ("", FalseServer::Malformed(Malformed::Grammar)),
        ("v=AAAA", FalseServer::Malformed(Malformed::Grammar)),
    ] {
        let mut client = client();
        client
            .on_server_first(SERVER_FIRST.as_bytes())
            .expect("a message");
        assert_eq!(
            client.on_server_final(said.as_bytes()),
            Err(expected),
            "{said}"
        );
    }
    assert_eq!(
        client().on_server_final(SERVER_FINAL.as_bytes()),
        Err(FalseServer::OutOfTurn)
    );
    let mut client = client();
    client
        .on_server_first(SERVER_FIRST.as_bytes())
        .expect("a message");
    let again = client.on_server_first(SERVER_FIRST.as_bytes());
    assert_eq!(again, Err(FalseServer::OutOfTurn));
}

/// A server may neither have the password for less work than the standard allows, nor keep its client busy for ever.
#[test]
fn server_first_that_asks_for_the_wrong_thing_is_refused() {
    let malformed = FalseServer::Malformed;
    let cases = [
        (
            SERVER_FIRST.replace("i=4096", "i=4095"),
            malformed(Malformed::Iterations),
        ),
        (
            SERVER_FIRST.replace("i=4096", "i=10000001"),
            malformed(Malformed::Iterations),
        ),
        (
            SERVER_FIRST.replace("i=4096", "i=+4096"),
            malformed(Malformed::Iterations),
        ),
        (
            SERVER_FIRST.replace("i=4096", "i=99999999999"),
            malformed(Malformed::Iterations),
        ),
        (
            SERVER_FIRST.replace(",i=4096", ""),
            malformed(Malformed::Grammar),
        ),
        (
            SERVER_FIRST.replace("s=W22", "s=!!!"),
            malformed(Malformed::Grammar),
        ),
        (
            SERVER_FIRST.replace("r=rO", "r=Or"),
            FalseServer::OtherExchange,
        ),
        (
            SERVER_FIRST.replace(SERVER_NONCE, ""),
            FalseServer::OtherExchange,
        ),
        (
            format!("m=x,{SERVER_FIRST}"),
            malformed(Malformed::Extension),
        ),
        ("e=other-error".to_owned(), malformed(Malformed::Grammar)),
    ];
    for (said, expected) in cases {
        assert_eq!(
            client().on_server_first(said.as_bytes()),
            Err(expected),
            "{said}"
        );
    }
}

#[test]
fn client_first_that_asks_for_what_is_not_done_here_is_refused() {
    for (said, expected) in [
        ("p=tls-exporter,,n=user,r=abc", Malformed::ChannelBinding),
        ("n,a=other,n=user,r=abc", Malformed::OtherUser),
        ("n,,m=x,n=user,r=abc", Malformed::Extension),
        ("x,,n=user,r=abc", Malformed::Grammar),
        ("n,,n=,r=abc", Malformed::Grammar),
        ("n,,n=user,r=", Malformed::Grammar),
        ("n,,n=user", Malformed::Grammar),
        ("n,,n=us=er,r=abc", Malformed::Grammar),
        ("n,,n=user=2,r=abc", Malformed::Grammar),
        ("n,,n=user,r=a c", Malformed::Grammar),
        ("n,,n=us\0er,r=abc", Malformed::Grammar),
        ("n,x,n=user,r=abc", Malformed::Grammar),
        ("n,,x,r=abc", Malformed::Grammar),
        ("n,", Malformed::Grammar),
        ("", Malformed::Grammar),
    ] {
        assert_eq!(first(said), Err(expected), "{said}");
    }
    assert_eq!(
        ClientFirst::parse(b"n,,n=\xff,r=abc"),
        Err(Malformed::Grammar)
    );
    let long = format!("n,,n={},r=abc", "x".repeat(4096));
    assert_eq!(first(&long), Err(Malformed::TooLong));
    for said in ["n,a=user,n=user,r=abc", "y,,n=user,r=abc,x=unknown"] {
        assert_eq!(first(said).expect("a message").user(), "user", "{said}");
    }
}

#[test]
fn client_final_of_another_exchange_or_with_another_proof_is_refused() {
    let other = Err(WrongProof::OtherExchange);
    let grammar = Err(WrongProof::Malformed(Malformed::Grammar));
    for (said, expected) in [
        (CLIENT_FINAL.replace("c=biws", "c=eSws"), other.clone()),
        (CLIENT_FINAL.replace("$k0", "$k1"), other.clone()),
        (CLIENT_FINAL.replace(SERVER_NONCE, ""), other),
        (
            CLIENT_FINAL.replace("p=dHz", "p=dHy"),
            Err(WrongProof::Password),
        ),
        (
            CLIENT_FINAL.replace(",p=", ",x=1,p="),
            Err(WrongProof::Password),
        ),
        (CLIENT_FINAL.replace("dVQ=", ""), grammar.clone()),
        (CLIENT_FINAL.replace(",p=", ",q="), grammar.clone()),
        ("p=dHz".to_owned(), grammar.clone()),
        (String::new(), grammar),
    ] {
        assert_eq!(server().finish(said.as_bytes()), expected, "{said}");
    }
}

/// RFC 5802 has both sides sign what was said, extensions included, and the header before it confirmed.
#[test]
fn header_with_a_name_and_unknown_extensions_are_signed_as_they_were_said() {
    let (mut client, _) = ClientExchange::begin(USER, PASSWORD, CLIENT_NONCE);
    client.client_first.gs2_header = "y,a=user,".to_owned();
    client.client_first.bare.push_str(",x=1");
    let said = format!("y,a=user,{}", client.client_first.bare);
    let (server, said) =
        ServerExchange::begin(first(&said).expect("a message"), keys(), SERVER_NONCE);
    let said = client.on_server_first(&said).expect("a message");
    let said = server.finish(&said).expect("a proof");
    assert_eq!(client.on_server_final(&said), Ok(()));
}

/// RFC 4013: what looks alike is alike, and what cannot be typed is no password.
#[test]
fn passwords_are_prepared() {
    let derive = |password: &str| Keys::derive(password, &[1; 16], iterations(4096));
    assert_eq!(derive("I\u{ad}X"), derive("IX"));
    assert_eq!(derive("\u{2168}"), derive("IX"));
    assert_ne!(derive("ix"), derive("IX"));
    assert_eq!(derive("\u{7}"), Err(PasswordError::Forbidden));
    assert_eq!(derive(""), Err(PasswordError::Empty));
    assert_eq!(derive("\u{ad}"), Err(PasswordError::Empty));
}

#[test]
fn keys_are_written_as_postgresql_writes_them_and_do_not_print() {
    let keys = keys();
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_eq!(keys.expose(), text);
    assert_eq!(Keys::parse(text), Ok(keys.clone()));
    assert_eq!(format!("{keys:?}"), "Keys(4096 iterations)");
    for bad in [
        text.replace("4096", "4095"),
        text.replace("4096", ""),
        text.replace("256$", "1$"),
        text.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22Z"),
        text.replace("dU=", "dUAA"),
        text.replace("==$", "=="),
        String::new(),
    ] {
        assert_eq!(Keys::parse(&bad), Err(KeysError), "{bad}");
    }
}

#[test]
fn nonces_differ_and_can_be_said() {
    let nonce = nonce().expect("randomness");
    assert_ne!(Ok(nonce.clone()), super::nonce());
    let said = format!("n,,n=user,r={nonce}");
    assert_eq!(first(&said).expect("a message").nonce, nonce);
}

/// Parts of messages, so that many of them get far.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "n",
        "y",
        "p=x",
        "",
        "a=user",
        "n=user",
        "n=",
        "r=rOprNGfwEbeRWgbNEkqO",
        "r=",
        "s=AAAA",
        "i=4096",
        "c=biws",
        "c=",
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=",
        "m=1",
        "=",
        "=2",
        "\u{e9}",
    ]);
    let parts = prop::collection::vec(parts, 0..7).prop_map(|parts| parts.join(",").into_bytes());
    prop_oneof![parts, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #[test]
    fn no_message_panics_and_none_that_was_made_up_lets_anybody_in(said in message()) {
        drop(ClientFirst::parse(&said));
        prop_assert!(server().finish(&said).is_err());
        let mut client = client();
        prop_assert!(client.on_server_first(&said).is_err());
        prop_assert!(client.on_server_final(&said).is_err());
    }

    #[test]
    fn every_name_comes_through(user in "[^\0]{1,40}") {
        let (_, said) = ClientExchange::begin(&user, "x", "abc");
        let found = ClientFirst::parse(&said).expect("a message");
        prop_assert_eq!(found.user(), user);
    }
}
