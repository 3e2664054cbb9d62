//! What wins: a flag over the environment, that over a profile.
//!
//! Owns: which of them each setting is taken from. Does not own: what it means (see `args`), the profiles (see `profiles`).
//! Start reading at [`ConnectionArgs::over`]. Invariants: what belongs together is taken from one of them; the password of a
//! profile goes with its own user name only.

use super::Failure;
use super::args::ConnectionArgs;
use super::called;
use super::login;
use super::profiles::{Profile, Profiles};
use super::url::{Url, parse_proxy};

impl ConnectionArgs {
    /// The profile that a flag or the environment names.
    pub(super) fn profile(&self) -> Result<Option<Profile>, Failure> {
        let of_environment = || {
            let name = std::env::var("MQTT_PROFILE").ok();
            name.filter(|name| !name.is_empty() && called::tool().is_none())
        };
        // Whoever names another server does not mean it to get this login.
        let names_server = self.url.is_some() || self.host.is_some() || self.unix.is_some();
        let of_environment = || of_environment().filter(|_| !names_server);
        let Some(name) = self.profile.clone().or_else(of_environment) else {
            return Ok(None);
        };
        let profiles = Profiles::open()?;
        profiles.named(&name).cloned().map(Some)
    }

    /// The flags, and where they say nothing the profile. What belongs together is taken from one of them.
    pub(super) fn over(&self, profile: &Profile) -> Self {
        let mut all = self.clone();
        if all.url.is_none() && all.unix.is_none() && all.protocol.is_none() {
            let names_host = all.host.is_some();
            all.url.clone_from(&profile.url);
            all.host = all.host.or_else(|| profile.host.clone());
            all.port = all
                .port
                .or_else(|| profile.port.map(|port| port.to_string()));
            all.unix = profile.unix.clone().filter(|_| !names_host);
        }
        if all.id.is_none() && all.id_prefix.is_none() {
            all.id.clone_from(&profile.id);
            all.id_prefix.clone_from(&profile.id_prefix);
        }
        let keep_alive = || profile.keepalive.map(|seconds| seconds.to_string());
        all.keepalive = all.keepalive.or_else(keep_alive);
        all.auth_method = all.auth_method.or_else(|| profile.auth_method.clone());
        let version = || profile.protocol_version.clone();
        all.protocol_version = all.protocol_version.or_else(version);
        all.proxy = all.proxy.or_else(|| profile.proxy.clone());
        all.nodelay |= profile.nodelay;
        all.tls = self.tls.over(profile);
        all
    }

    /// User name and password: flags first, then a URL, the environment, the profile.
    pub(super) fn who(
        &self,
        url: &Url,
        profile: &Profile,
    ) -> Result<(Option<String>, Option<String>), Failure> {
        // The URL of a profile counts as the profile.
        let is_ours = self.url != profile.url;
        let ours = |text: &Option<String>| text.clone().filter(|_| is_ours);
        let theirs = |text: &Option<String>| text.clone().filter(|_| !is_ours);
        let given = self.username.clone().or_else(|| ours(&url.user_name));
        let kept = profile.username.clone().or_else(|| theirs(&url.user_name));
        let is_same = given.is_none() || given == kept;
        let user_name = given.or(kept);
        let mut password = self.password.clone();
        if password.is_none() {
            password = self.login.password()?.or_else(|| ours(&url.password));
        }
        if password.is_none() && (user_name.is_some() || self.auth_method.is_some()) {
            password = std::env::var("MQTT_PASSWORD").ok();
        }
        // Nobody else's password is sent to a server.
        if password.is_none() && is_same {
            password = match (&profile.password, &profile.password_file) {
                (Some(password), _) => Some(password.clone()),
                (None, Some(path)) => Some(login::of_file(path)?),
                (None, None) => theirs(&url.password),
            };
        }
        Ok((user_name, password))
    }

    /// User name and password for a profile to keep.
    pub(crate) fn login_to_keep(
        &self,
        tool: &str,
    ) -> Result<(Option<String>, Option<String>), Failure> {
        let url = self.place(tool)?;
        let user_name = self.username.clone().or(url.user_name);
        if self.login.secret.password_file.is_some() {
            return Ok((user_name, None));
        }
        let password = match &self.password {
            Some(password) => Some(password.clone()),
            None => self.login.password()?.or(url.password),
        };
        Ok((user_name, password))
    }

    /// Tells what is wrong with the flags.
    pub(crate) fn check(&self, tool: &str) -> Result<(), Failure> {
        self.version(tool)?;
        self.keep_alive(tool)?;
        let url = self.place(tool)?;
        self.port(tool, url.port, 1)?;
        if let Some(proxy) = &self.proxy {
            parse_proxy(proxy).map_err(|text| Failure::usage(tool, text))?;
        }
        self.tls.tls(tool, url.scheme.is_secure()).map(|_| ())
    }

    /// A flag that is set and means nothing to a profile.
    pub(crate) fn not_in_a_profile(&self) -> Option<&'static str> {
        let flags = [
            (self.profile.is_some(), "--profile"),
            (self.ws, "--ws (a URL says it)"),
            (self.protocol.is_some(), "--protocol (a URL says it)"),
            (self.path.is_some(), "--path (a URL says it)"),
            (self.disable_clean_session, "-c"),
            (self.session_expiry_interval.is_some(), "-x"),
            (!self.property.is_empty(), "-D"),
            (self.will_topic.is_some(), "--will-topic"),
            (self.will_payload.is_some(), "--will-payload"),
            (self.will_qos.is_some(), "--will-qos"),
            (self.will_retain, "--will-retain"),
            (self.bind_address.is_some(), "-A"),
            (self.tls.tls_keylog.is_some(), "--tls-keylog"),
            (self.tls.no_tls, "--no-tls"),
            (self.debug, "-d"),
            (self.quiet, "--quiet"),
        ];
        let set = flags.iter().find(|(is_set, _)| *is_set);
        set.map(|(_, flag)| *flag)
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::Properties;
    use super::*;

    fn profile() -> Profile {
        Profile {
            url: Some("mqtts://broker.example:8884".to_owned()),
            username: Some("anna".to_owned()),
            password: Some("hers".to_owned()),
            keepalive: Some(33),
            cert: Some("anna.pem".into()),
            key: Some("anna.key".into()),
            insecure: true,
            ..Profile::default()
        }
    }

    fn flags() -> ConnectionArgs {
        let mut flags = ConnectionArgs::of_url("mqtt://x");
        flags.url = None;
        flags
    }

    fn who(flags: &ConnectionArgs, profile: &Profile) -> (Option<String>, Option<String>) {
        let over = flags.over(profile);
        let url = over.place("sub").unwrap();
        over.who(&url, profile).unwrap()
    }

    fn pair(user_name: &str, password: Option<&str>) -> (Option<String>, Option<String>) {
        (Some(user_name.to_owned()), password.map(str::to_owned))
    }

    #[test]
    fn a_profile_says_what_flags_leave_open() {
        let over = flags().over(&profile());
        assert_eq!(over.url, profile().url);
        assert_eq!(over.keepalive.as_deref(), Some("33"));
        assert!(over.tls.insecure && over.tls.cert.is_some());
        assert_eq!(who(&flags(), &profile()), pair("anna", Some("hers")));
        let mut louder = flags();
        louder.keepalive = Some("5".to_owned());
        louder.host = Some("other".to_owned());
        louder.tls.cert = Some("other.pem".into());
        let over = louder.over(&profile());
        assert_eq!(over.keepalive.as_deref(), Some("5"));
        // The scheme stays: what was to be encrypted is.
        assert_eq!(
            (over.url, over.host.as_deref()),
            (profile().url, Some("other"))
        );
        assert_eq!(over.tls.key, None);
    }

    /// Class X: the password of a profile is not sent for another user, and a URL of the command line replaces the way there.
    #[test]
    fn the_password_of_a_profile_goes_with_its_user_only() {
        let mut other = flags();
        other.username = Some("otto".to_owned());
        assert_eq!(who(&other, &profile()), pair("otto", None));
        other.username = Some("anna".to_owned());
        assert_eq!(who(&other, &profile()), pair("anna", Some("hers")));
        other.password = Some("mine".to_owned());
        assert_eq!(who(&other, &profile()), pair("anna", Some("mine")));
        let url = ConnectionArgs::of_url("mqtt://otto:his@other/");
        assert_eq!(who(&url, &profile()), pair("otto", Some("his")));
        assert_eq!(
            url.over(&profile()).url.as_deref(),
            Some("mqtt://otto:his@other/")
        );
        let by_url = Profile {
            url: Some("mqtt://eva:hers@broker".to_owned()),
            ..Profile::default()
        };
        assert_eq!(who(&flags(), &by_url), pair("eva", Some("hers")));
        let mut other = flags();
        other.username = Some("otto".to_owned());
        assert_eq!(who(&other, &by_url), pair("otto", None));
    }

    #[test]
    fn what_a_profile_does_not_keep_is_named() {
        let mut with_will = flags();
        assert_eq!(with_will.not_in_a_profile(), None);
        with_will.will_topic = Some("w".to_owned());
        assert_eq!(with_will.not_in_a_profile(), Some("--will-topic"));
        let mut wrong = flags();
        wrong.keepalive = Some("1".to_owned());
        assert!(
            wrong
                .check("profile")
                .unwrap_err()
                .text
                .contains("keepalive")
        );
        let none = flags().connection("sub", Properties::default()).unwrap();
        assert_eq!(none.options.address(), ("localhost", 1883));
    }
}
