//! Topics of Clients that have one part of the tree only, the mount point of their listener.
//!
//! Owns: [`next_event`], [`will`]: what such a Client says, as the Server has it. Does not own: what it is sent (see
//! `ServerConnection::hide_topic_prefix`), that nothing outside of it is reached (see `engine::Principal`). Start
//! reading at [`next_event`]. Invariant: no Topic Name and no Topic Filter of such a Client gets to the engine as it came.

use std::time::Instant;

use proto::connection::{ConnectionError, Event, ServerConnection};
use proto::packet::{Publish, ReasonCode, Subscribe, SubscriptionRequest, Unsubscribe, Will};
use proto::topic::split_shared;

/// What `protocol` takes from the front of `input`, with its topics below `mount_point` if there is one; `names` is where
/// they are kept.
/// # Errors
/// As of [`ServerConnection::next_event`], or a topic would be too long.
#[inline]
pub(super) fn next_event<'a>(
    protocol: &'a mut ServerConnection,
    mount_point: Option<&str>,
    input: &'a [u8],
    now: Instant,
    names: &'a mut Vec<String>,
) -> Result<Option<(Event<'a>, usize)>, ConnectionError> {
    match (protocol.next_event(input, now)?, mount_point) {
        (Some((event, len)), Some(mount_point)) => {
            Ok(Some((self::event(event, mount_point, names)?, len)))
        }
        (event, _) => Ok(event),
    }
}

/// The same with its topics below `mount_point`; `names` is where they are kept.
/// # Errors
/// One would be longer than a topic may be.
fn event<'a>(
    event: Event<'a>,
    mount_point: &str,
    names: &'a mut Vec<String>,
) -> Result<Event<'a>, ConnectionError> {
    Ok(match event {
        Event::Publish(publish) => {
            names.push(name(mount_point, publish.topic)?);
            let topic = names.first().map_or("", String::as_str);
            Event::Publish(Publish { topic, ..publish })
        }
        Event::Subscribe(subscribe) => {
            for request in &subscribe.requests {
                names.push(filter(mount_point, request.filter)?);
            }
            let requests = subscribe.requests.iter().zip(&*names);
            Event::Subscribe(Subscribe {
                requests: requests
                    .map(|(request, filter)| SubscriptionRequest {
                        filter,
                        options: request.options,
                    })
                    .collect(),
                packet_id: subscribe.packet_id,
                subscription_identifier: subscribe.subscription_identifier,
                user_properties: subscribe.user_properties,
            })
        }
        Event::Unsubscribe(unsubscribe) => {
            for one in &unsubscribe.filters {
                names.push(filter(mount_point, one)?);
            }
            Event::Unsubscribe(Unsubscribe {
                filters: names.iter().map(String::as_str).collect(),
                packet_id: unsubscribe.packet_id,
                user_properties: unsubscribe.user_properties,
            })
        }
        other => other,
    })
}

/// The same of a Will Message.
/// # Errors
/// Its topic would be longer than one may be.
pub(super) fn will(will: &mut Will, mount_point: &str) -> Result<(), ConnectionError> {
    will.topic = name(mount_point, &will.topic)?;
    Ok(())
}

fn name(mount_point: &str, topic: &str) -> Result<String, ConnectionError> {
    let name = [mount_point, topic].concat();
    if name.len() > TOPIC_BYTES_MAX {
        return Err(too_long(ReasonCode::TopicNameInvalid));
    }
    Ok(name)
}

/// A Shared Subscription keeps its ShareName in front.
fn filter(mount_point: &str, filter: &str) -> Result<String, ConnectionError> {
    let filter = match split_shared(filter) {
        Some((share_name, inner)) => ["$share/", share_name, "/", mount_point, inner].concat(),
        None => [mount_point, filter].concat(),
    };
    if filter.len() > TOPIC_BYTES_MAX {
        return Err(too_long(ReasonCode::TopicFilterInvalid));
    }
    Ok(filter)
}

fn too_long(reason: ReasonCode) -> ConnectionError {
    ConnectionError::refused(reason, "with what stands before it here it is too long")
}

/// The longest Topic Name and Topic Filter, section 4.7.3.
const TOPIC_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_name_stays_in_front() {
        let cases = [
            ("a/+", "t/a/+"),
            ("#", "t/#"),
            ("$share/g/#", "$share/g/t/#"),
            ("$share/g//a", "$share/g/t//a"),
            ("$SYS/#", "t/$SYS/#"),
            ("../a", "t/../a"),
        ];
        for (from, to) in cases {
            assert_eq!(filter("t/", from).expect("is short"), to);
        }
    }

    #[test]
    fn topic_that_gets_too_long_is_refused() {
        let longest = "a".repeat(TOPIC_BYTES_MAX - 2);
        assert!(name("t/", &longest).is_ok() && filter("t/", &longest).is_ok());
        let longer = format!("{longest}a");
        let error = name("t/", &longer).expect_err("too long");
        assert_eq!(error.reason_code(), ReasonCode::TopicNameInvalid);
        let error = filter("t/", &longer).expect_err("too long");
        assert_eq!(error.reason_code(), ReasonCode::TopicFilterInvalid);
        assert!(filter("t/", &format!("$share/g/{longest}")).is_err());
    }
}
