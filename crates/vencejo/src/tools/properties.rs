//! The `-D COMMAND NAME VALUE` flags: MQTT 5.0 properties by mosquitto's names.
//!
//! Owns: names, value types, which command takes which. Does not own: their wire form.
//! Start reading at [`Properties::parse`]. Invariant: what is accepted here can be sent.

use proto::Secret;
use proto::packet::{
    ConnectProperties, Disconnect, Property, ReasonCode, UserProperties, WillProperties,
};

/// The properties of one run, by the packet they go into.
#[derive(Clone, Debug)]
pub(crate) struct Properties {
    pub(crate) connect: ConnectProperties,
    pub(crate) will: WillProperties,
    /// In order, encoded.
    pub(crate) publish: Vec<u8>,
    pub(crate) subscribe_user_properties: UserProperties,
    pub(crate) subscription_identifier: Option<u32>,
    pub(crate) unsubscribe_user_properties: UserProperties,
    pub(crate) disconnect: Disconnect,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            connect: ConnectProperties::default(),
            will: WillProperties::default(),
            publish: Vec::new(),
            subscribe_user_properties: Vec::new(),
            subscription_identifier: None,
            unsubscribe_user_properties: Vec::new(),
            disconnect: Disconnect::new(ReasonCode::Success),
        }
    }
}

impl Properties {
    /// Reads the values of all `-D` flags, one after the other: four for a User Property, else three.
    pub(crate) fn parse(values: &[String]) -> Result<Self, String> {
        let mut properties = Self::default();
        let mut rest: &[String] = values;
        while !rest.is_empty() {
            rest = match rest {
                [command, kind, name, value, rest @ ..] if kind == "user-property" => {
                    properties.add_user_property(command, name, value)?;
                    rest
                }
                [_, kind, ..] if kind == "user-property" => {
                    return Err("user-property needs a name and a value.".into());
                }
                [command, name, value, rest @ ..] => {
                    properties.add(command, name, value)?;
                    rest
                }
                _ => return Err("--property takes a command, a name and a value.".into()),
            };
        }
        Ok(properties)
    }

    fn add_user_property(&mut self, command: &str, name: &str, value: &str) -> Result<(), String> {
        let pair = (name.to_owned(), value.to_owned());
        match command {
            "connect" => self.connect.user_properties.push(pair),
            "publish" => put(&mut self.publish, &Property::UserProperty(name, value))?,
            "will" => self.put_will(&Property::UserProperty(name, value))?,
            "subscribe" => self.subscribe_user_properties.push(pair),
            "unsubscribe" => self.unsubscribe_user_properties.push(pair),
            "disconnect" => self.disconnect.user_properties.push(pair),
            _ => return Err(INVALID_COMMAND.into()),
        }
        Ok(())
    }

    fn add(&mut self, command: &str, name: &str, value: &str) -> Result<(), String> {
        if !NAMES.contains(&name) {
            return Err("Invalid property name given in --property argument.".into());
        }
        let is_taken = match command {
            "connect" => self.add_connect(name, value)?,
            "publish" => match message_property(name, value)? {
                Some(property) => {
                    put(&mut self.publish, &property)?;
                    true
                }
                None => false,
            },
            "will" => self.add_will(name, value)?,
            "subscribe" if name == "subscription-identifier" => {
                let identifier = number(name, value)?;
                if !(1..=268_435_455).contains(&identifier) {
                    return Err("subscription-identifier must be between 1 and 268435455.".into());
                }
                self.subscription_identifier = Some(identifier);
                true
            }
            "disconnect" if name == "session-expiry-interval" => {
                self.disconnect.session_expiry_interval_seconds = Some(number(name, value)?);
                true
            }
            "subscribe" | "unsubscribe" | "disconnect" => false,
            _ => return Err(INVALID_COMMAND.into()),
        };
        if is_taken {
            return Ok(());
        }
        Err(format!(
            "{name} property not allowed for {command} in --property argument."
        ))
    }

    fn add_connect(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let connect = &mut self.connect;
        match name {
            "session-expiry-interval" => {
                connect.session_expiry_interval_seconds = Some(number(name, value)?);
            }
            "receive-maximum" => connect.receive_maximum = Some(number(name, value)?),
            "maximum-packet-size" => connect.maximum_packet_size_bytes = Some(number(name, value)?),
            "topic-alias-maximum" => connect.topic_alias_maximum = number(name, value)?,
            "request-problem-information" => {
                connect.request_problem_information = flag(name, value)?;
            }
            "request-response-information" => {
                connect.request_response_information = flag(name, value)?;
            }
            "authentication-method" => connect.authentication_method = Some(value.to_owned()),
            "authentication-data" => {
                connect.authentication_data = Some(Secret::new(value.as_bytes().to_vec()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add_will(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "will-delay-interval" => self.will.delay_interval_seconds = number(name, value)?,
            "message-expiry-interval" => {
                self.will.message_expiry_interval_seconds = Some(number(name, value)?);
            }
            "topic-alias" => return Ok(false),
            _ => match message_property(name, value)? {
                Some(property) => self.put_will(&property)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    fn put_will(&mut self, property: &Property<'_>) -> Result<(), String> {
        let mut forwarded = self.will.forwarded.to_vec();
        put(&mut forwarded, property)?;
        self.will.forwarded = forwarded.into();
        Ok(())
    }
}

fn message_property<'a>(name: &'a str, value: &'a str) -> Result<Option<Property<'a>>, String> {
    Ok(Some(match name {
        "content-type" => Property::ContentType(value),
        "correlation-data" => Property::CorrelationData(value.as_bytes()),
        "message-expiry-interval" => Property::MessageExpiryInterval(number(name, value)?),
        "payload-format-indicator" => {
            Property::PayloadFormatIndicator(u8::from(flag(name, value)?))
        }
        "response-topic" => Property::ResponseTopic(value),
        "topic-alias" => Property::TopicAlias(number(name, value)?),
        _ => return Ok(None),
    }))
}

fn put(section: &mut Vec<u8>, property: &Property<'_>) -> Result<(), String> {
    property.put(section).map_err(|error| format!("{error}."))
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    value
        .parse()
        .map_err(|_| format!("'{value}' is no value for {name}."))
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{name} is 0 or 1.")),
    }
}

const INVALID_COMMAND: &str = "Invalid command given in --property argument.";

const NAMES: &[&str] = &[
    "authentication-data",
    "authentication-method",
    "content-type",
    "correlation-data",
    "maximum-packet-size",
    "message-expiry-interval",
    "payload-format-indicator",
    "receive-maximum",
    "request-problem-information",
    "request-response-information",
    "response-topic",
    "session-expiry-interval",
    "subscription-identifier",
    "topic-alias",
    "topic-alias-maximum",
    "will-delay-interval",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_go_into_their_packets() {
        let flags = "connect receive-maximum 7 connect user-property a b \
            publish content-type text/plain will will-delay-interval 5 \
            subscribe subscription-identifier 3 disconnect session-expiry-interval 9";
        let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        let properties = Properties::parse(&flags).unwrap();
        assert_eq!(properties.connect.receive_maximum.unwrap().get(), 7);
        assert_eq!(
            properties.connect.user_properties,
            [("a".into(), "b".into())]
        );
        assert_eq!(properties.publish[0], 0x03);
        assert_eq!(properties.will.delay_interval_seconds, 5);
        assert_eq!(properties.subscription_identifier, Some(3));
        assert_eq!(
            properties.disconnect.session_expiry_interval_seconds,
            Some(9)
        );
    }

    #[test]
    fn refusals_are_worded_as_by_mosquitto() {
        let cases = [
            (
                "foo content-type 1",
                "Invalid command given in --property argument.",
            ),
            (
                "connect bar 1",
                "Invalid property name given in --property argument.",
            ),
            (
                "connect content-type 1",
                "content-type property not allowed for connect in --property argument.",
            ),
            (
                "connect receive-maximum 0",
                "'0' is no value for receive-maximum.",
            ),
            (
                "publish user-property a",
                "user-property needs a name and a value.",
            ),
        ];
        for (flags, text) in cases {
            let flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
            assert_eq!(Properties::parse(&flags).unwrap_err(), text);
        }
    }
}
