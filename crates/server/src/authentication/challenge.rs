//! The test method `VENCEJO-TEST`: every turn an enhanced authentication can take, and no security.
//!
//! Owns: [`Challenge`]. Does not own: any secret. Start reading at [`Challenge`].
//! Invariant: it is reachable only where the configuration says `authentication.test_method = true`.

use proto::Secret;
use proto::packet::ReasonCode;

use super::{Attempt, Authenticator, Decision, Exchange, Identity};

/// Answers by the Authentication Data alone. `allow` is let in at once with `allowed`; `deny` is refused;
/// anything else in a first step is asked `challenge-1`. The right answer to `challenge-N` is
/// `response-N`, which is let in with `allowed`; the answer `again` is asked `challenge-N+1`; all else is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Challenge;

impl Challenge {
    /// The Authentication Method it answers for.
    pub const METHOD: &'static str = "VENCEJO-TEST";
}

impl Authenticator for Challenge {
    fn method(&self) -> Option<&str> {
        Some(Self::METHOD)
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let data = attempt.data.map(Secret::expose).unwrap_or_default();
        let step = exchange.step;
        let is_right = step > 0 && data == format!("response-{step}").as_bytes();
        if is_right || (step == 0 && data == b"allow") {
            return Some(Decision::Allow {
                identity: Identity::anonymous(),
                data: Some(Secret::new(&b"allowed"[..])),
            });
        }
        let goes_on = if step == 0 {
            data != b"deny"
        } else {
            data == b"again"
        };
        if goes_on {
            exchange.step += 1;
            let challenge = Secret::new(format!("challenge-{}", exchange.step));
            return Some(Decision::Continue(Some(challenge)));
        }
        Some(Decision::Deny(
            ReasonCode::NotAuthorized,
            "the test method says no".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(exchange: &mut Exchange, data: &'static str) -> String {
        let attempt = Attempt {
            client_id: "a",
            user_name: None,
            password: None,
            data: Some(&Secret::new(data)),
            peer: ([127, 0, 0, 1], 9).into(),
            listener: "test",
            anonymous: None,
            is_for_others: false,
            certificate: None,
            version: proto::Version::V5,
        };
        match Challenge
            .authenticate(&attempt, exchange)
            .expect("a decision")
        {
            Decision::Allow { .. } => "allow".to_owned(),
            Decision::Continue(data) => {
                String::from_utf8_lossy(data.expect("a challenge").expose()).into_owned()
            }
            Decision::Deny(reason, _) => format!("{:02x}", reason.value()),
            Decision::Wait(_) => panic!("there is nothing to wait for"),
        }
    }

    #[test]
    fn every_turn_of_an_exchange_can_be_taken() {
        let mut exchange = Exchange::default();
        assert_eq!(answer(&mut exchange, "hello"), "challenge-1");
        assert_eq!(answer(&mut exchange, "again"), "challenge-2");
        assert_eq!(answer(&mut exchange.clone(), "response-1"), "87");
        assert_eq!(answer(&mut exchange, "response-2"), "allow");
        assert_eq!(answer(&mut Exchange::default(), "allow"), "allow");
        assert_eq!(answer(&mut Exchange::default(), "deny"), "87");
    }
}
