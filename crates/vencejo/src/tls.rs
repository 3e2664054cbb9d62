//! `vencejo tls init|client`: certificates for a first secure start.
//!
//! Owns: a certificate authority of one's own and what it signs, as files. Does not own: how they are used (see
//! `server`). Start reading at [`init`]. Invariants: an authority that is there is used, never replaced; keys can be
//! read by their owner only.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::{Span, ZonedDateTime, civil};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;

use crate::serve;
use crate::tools::Failure;

/// Certificates of one's own
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct TlsArgs {
    #[command(subcommand)]
    command: TlsCommand,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum TlsCommand {
    /// Make a certificate for this server, and the authority that signs it if there is none
    #[command(disable_help_flag = true)]
    Init(InitArgs),
    /// Make a certificate for a client, signed by the authority that `init` has made
    #[command(disable_help_flag = true)]
    Client(ClientArgs),
}

#[derive(Args, Clone, Debug)]
struct InitArgs {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR", default_value = "tls")]
    folder: PathBuf,
    /// A name or address that clients use for this server; may be repeated
    /// [default: localhost, its addresses, and the name of this machine]
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Args, Clone, Debug)]
struct ClientArgs {
    /// Its Common Name, which `certificate_user = "common-name"` makes its user; and that of its files
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the authority is, and where the files go
    #[arg(value_name = "DIR", default_value = "tls")]
    folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Does what the flags say.
pub(crate) fn run(args: &TlsArgs) -> Result<(), Failure> {
    match &args.command {
        TlsCommand::Init(args) => init(args),
        TlsCommand::Client(args) => client(args),
    }
}

fn init(args: &InitArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let files = Files::of(folder, "server");
    let (issuer, is_new) = authority(&files)?;
    let names = if args.name.is_empty() {
        usual_names()
    } else {
        args.name.clone()
    };
    let mut params = CertificateParams::new(names.clone())
        .map_err(|error| Failure::new(format!("Error: {}: {error}.", names.join(", "))))?;
    let first = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, first);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let until = sign(params, &issuer, &files)?;
    serve::print(&match args.json {
        true => object(&files, is_new, first, &names, until),
        false => report(&files, is_new, &names, until),
    });
    Ok(())
}

fn client(args: &ClientArgs) -> Result<(), Failure> {
    let name = &args.name;
    let is_a_file = !name.starts_with('.') && !name.contains(|c: char| c == '/' || c.is_control());
    if name.is_empty() || !is_a_file || ["ca", "server"].contains(&name.as_str()) {
        return Err(Failure::new(format!(
            "Error: {name:?} cannot be the name of a client: it is that of its files, beside `ca` and `server`."
        )));
    }
    let files = Files::of(&args.folder, name);
    if !files.authority.exists() {
        return Err(Failure::new(format!(
            "Error: there is no {}: `{} tls init` makes an authority.",
            files.authority.display(),
            serve::program()
        )));
    }
    let (issuer, is_new) = authority(&files)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| of_making(&error))?;
    let common_name = name.as_str();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let until = sign(params, &issuer, &files)?;
    serve::print(&match args.json {
        true => object(&files, is_new, name, &[], until),
        false => report_of_client(&files, name, until),
    });
    Ok(())
}

/// Makes a key and its certificate; returns how long it lasts.
fn sign(
    mut params: CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
    files: &Files,
) -> Result<civil::Date, Failure> {
    let today = ZonedDateTime::now().date();
    let until = day(today, CERTIFICATE_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    lasts(&mut params, day(today, -1), until);
    let key = KeyPair::generate().map_err(|error| of_making(&error))?;
    let certificate = params.signed_by(&key, issuer);
    let certificate = certificate.map_err(|error| of_making(&error))?;
    write(&files.certificate, &certificate.pem(), 0o644)?;
    write(&files.key, &key.serialize_pem(), 0o600)?;
    Ok(until)
}

/// Where everything is.
struct Files {
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Those of the authority in `folder`, and of whom it signs.
    fn of(folder: &Path, name: &str) -> Self {
        Self {
            authority: folder.join("ca.pem"),
            authority_key: folder.join("ca.key"),
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }
}

/// The authority that is there, or a new one; and whether it is new.
fn authority(files: &Files) -> Result<(Issuer<'static, KeyPair>, bool), Failure> {
    let (path, key_path) = (&files.authority, &files.authority_key);
    match (path.exists(), key_path.exists()) {
        (true, true) => {
            let key = fs::read_to_string(key_path).map_err(|error| failed(key_path, &error))?;
            let key = KeyPair::from_pem(&key).map_err(|error| failed(key_path, &error))?;
            let pem = fs::read_to_string(path).map_err(|error| failed(path, &error))?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key);
            Ok((issuer.map_err(|error| failed(path, &error))?, false))
        }
        (false, false) => {
            let mut params =
                CertificateParams::new(Vec::new()).map_err(|error| of_making(&error))?;
            let name = format!("Vencejo CA of {}", machine());
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let today = ZonedDateTime::now().date();
            lasts(&mut params, day(today, -1), day(today, AUTHORITY_DAYS));
            let key = KeyPair::generate().map_err(|error| of_making(&error))?;
            let certificate = params.self_signed(&key);
            let certificate = certificate.map_err(|error| of_making(&error))?;
            write(key_path, &key.serialize_pem(), 0o600)?;
            write(path, &certificate.pem(), 0o644)?;
            Ok((Issuer::new(params, key), true))
        }
        (true, false) | (false, true) => {
            let (is, missing) = if path.exists() {
                (path, key_path)
            } else {
                (key_path, path)
            };
            Err(Failure::new(format!(
                "Error: there is {}, but no {}: put it back, or choose another folder.",
                is.display(),
                missing.display()
            )))
        }
    }
}

fn report(files: &Files, is_new: bool, names: &[String], until: civil::Date) -> String {
    let (authority, certificate) = (files.authority.display(), files.certificate.display());
    let (key, program) = (files.key.display(), serve::program());
    let what = if is_new {
        "new: give it to every client"
    } else {
        "as it was: clients that have it need nothing new"
    };
    // What a client asks for has to stand in the certificate.
    let first = names.first().map_or("localhost", String::as_str);
    let names = names.join(", ");
    format!(
        "\n  Authority    {authority}: {what}\n  Certificate  {certificate}: for {names}; until {until}\n\
         \x20 Key          {key}: for the server only\n\n  In its configuration:\n\n\
         \x20   [[listeners]]\n    address = \"0.0.0.0:8883\"\n\
         \x20   tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n\n  Then, with SIGHUP where it runs already:\n\n\
         \x20   {program} sub -h {first} --cafile {authority} -t 'hello/#' -v\n\n"
    )
}

fn report_of_client(files: &Files, name: &str, until: civil::Date) -> String {
    let (authority, certificate) = (files.authority.display(), files.certificate.display());
    let (key, program) = (files.key.display(), serve::program());
    format!(
        "\n  Certificate  {certificate}: for the client {name}; until {until}\n  Key          {key}: for this client only\n\n\
         \x20 In the server's configuration:\n\n\
         \x20   [[listeners]]\n    address = \"0.0.0.0:8883\"\n    tls = {{ ..., client_ca = \"{authority}\" }}\n\n\
         \x20   [authentication]\n    certificate_user = \"common-name\"        # the client is the user {name}\n\n  Then:\n\n\
         \x20   {program} sub -h SERVER --cafile {authority} --cert {certificate} --key {key} -t 'hello/#' -v\n\n"
    )
}

/// The same of `init` and of `client`, whose certificate is for no names.
fn object(
    files: &Files,
    is_new: bool,
    common_name: &str,
    names: &[String],
    until: civil::Date,
) -> String {
    let value = json!({
        "authority": files.authority.display().to_string(),
        "is_new_authority": is_new,
        "certificate": files.certificate.display().to_string(),
        "key": files.key.display().to_string(),
        "common_name": common_name,
        "names": names,
        "until": until.to_string(),
    });
    format!("{value}\n")
}

/// What clients on this machine and beside it use.
fn usual_names() -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let machine = machine();
    if !names.contains(&machine) {
        names.push(machine);
    }
    names
}

/// The name of this machine.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

fn day(from: civil::Date, days: i32) -> civil::Date {
    from.saturating_add(Span::new().days(days))
}

fn lasts(params: &mut CertificateParams, from: civil::Date, until: civil::Date) {
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    let date =
        |day: civil::Date| date_time_ymd(day.year().into(), part(day.month()), part(day.day()));
    (params.not_before, params.not_after) = (date(from), date(until));
}

/// Puts a whole file there, or none: a server may read it at any time.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut draft = path.to_owned().into_os_string();
    draft.push(".draft");
    // One that was left may be readable by others.
    fs::remove_file(&draft).ok();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("Error: {}: {error}.", path.display()))
}

fn of_making(error: &rcgen::Error) -> Failure {
    Failure::new(format!("Error: no certificate could be made: {error}."))
}

/// How long a certificate lasts: as long as all clients believe.
const CERTIFICATE_DAYS: i32 = 825;
/// How long the authority lasts.
const AUTHORITY_DAYS: i32 = 20 * 365;
