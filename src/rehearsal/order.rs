//! The life cycles of orders, authorizations and challenges (RFC 8555 section 7.1.6), as pure steps.

use std::time::SystemTime;

use rcgen::SubjectPublicKeyInfo;

use super::problem::Problem;

/// The status of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderStatus {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

impl OrderStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }

    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Valid | Self::Invalid)
    }
}

/// How far an order has come, with what belongs to that stage.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    Pending,
    Ready,
    /// Finalized; the key waits for its certificate.
    Processing {
        key: Box<SubjectPublicKeyInfo>,
    },
    /// The chain in PEM.
    Valid {
        chain: String,
    },
    /// With the error that came up while issuing, if that was the reason.
    Invalid {
        error: Option<Problem>,
    },
}

impl Progress {
    pub(super) fn status(&self) -> OrderStatus {
        match self {
            Self::Pending => OrderStatus::Pending,
            Self::Ready => OrderStatus::Ready,
            Self::Processing { .. } => OrderStatus::Processing,
            Self::Valid { .. } => OrderStatus::Valid,
            Self::Invalid { .. } => OrderStatus::Invalid,
        }
    }
}

/// Where an order stands, given its authorizations and whether its time is over. Once it is
/// processing, only issuance moves it.
pub(super) fn settle(
    status: OrderStatus,
    mut authorizations: impl Iterator<Item = AuthorizationStatus>,
    expired: bool,
) -> OrderStatus {
    if !matches!(status, OrderStatus::Pending | OrderStatus::Ready) {
        return status;
    }
    if expired {
        return OrderStatus::Invalid;
    }
    let worst = authorizations.try_fold(OrderStatus::Ready, |so_far, next| match next {
        AuthorizationStatus::Valid => Some(so_far),
        AuthorizationStatus::Pending => Some(OrderStatus::Pending),
        AuthorizationStatus::Invalid | AuthorizationStatus::Deactivated | AuthorizationStatus::Expired => {
            None
        }
    });
    worst.unwrap_or(OrderStatus::Invalid)
}

/// The status of an authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthorizationStatus {
    Pending,
    Valid,
    Invalid,
    Deactivated,
    Expired,
}

impl AuthorizationStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Deactivated => "deactivated",
            Self::Expired => "expired",
        }
    }
}

/// How far the proof of control over one identifier has come: the state of an authorization and of
/// its only challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nobody asked for the validation yet.
    Pending,
    /// The validation is under way.
    Processing,
    Valid {
        validated: SystemTime,
    },
    Invalid {
        error: Problem,
    },
    /// Given up by the account, before or after it was valid.
    Deactivated {
        validated: Option<SystemTime>,
    },
}

impl Proof {
    /// The authorization's status.
    pub(super) fn authorization(&self, expired: bool) -> AuthorizationStatus {
        match self {
            Self::Pending | Self::Processing if expired => AuthorizationStatus::Invalid,
            Self::Pending | Self::Processing => AuthorizationStatus::Pending,
            Self::Valid { .. } if expired => AuthorizationStatus::Expired,
            Self::Valid { .. } => AuthorizationStatus::Valid,
            Self::Invalid { .. } => AuthorizationStatus::Invalid,
            Self::Deactivated { .. } => AuthorizationStatus::Deactivated,
        }
    }

    /// The challenge's status, by name.
    pub(super) fn challenge(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Valid { .. } | Self::Deactivated { validated: Some(_) } => "valid",
            Self::Invalid { .. } => "invalid",
            Self::Deactivated { validated: None } => "pending",
        }
    }

    /// The client says that the challenge is ready: whether the validation shall start.
    pub(super) fn begin(&mut self, expired: bool) -> bool {
        let starts = *self == Self::Pending && !expired;
        if starts {
            *self = Self::Processing;
        }
        starts
    }

    /// The validation ended. Nothing happens where the account gave up meanwhile.
    pub(super) fn end(&mut self, result: Result<(), Problem>, now: SystemTime) {
        if *self == Self::Processing {
            *self = match result {
                Ok(()) => Self::Valid { validated: now },
                Err(error) => Self::Invalid { error },
            };
        }
    }

    /// The account gives up the authorization: whether it could (RFC 8555 section 7.5.2).
    pub(super) fn deactivate(&mut self) -> bool {
        let validated = match self {
            Self::Pending | Self::Processing => None,
            Self::Valid { validated } => Some(*validated),
            Self::Invalid { .. } | Self::Deactivated { .. } => return false,
        };
        *self = Self::Deactivated { validated };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use AuthorizationStatus as A;
    use OrderStatus as O;

    #[test]
    fn orders_settle() {
        for (status, authorizations, expired, expected) in [
            (O::Pending, &[A::Pending][..], false, O::Pending),
            (O::Pending, &[A::Valid, A::Pending], false, O::Pending),
            (O::Pending, &[A::Valid, A::Valid], false, O::Ready),
            (O::Pending, &[A::Valid, A::Invalid], false, O::Invalid),
            (O::Pending, &[A::Pending, A::Deactivated], false, O::Invalid),
            (O::Pending, &[A::Expired, A::Pending], false, O::Invalid),
            (O::Pending, &[A::Valid], true, O::Invalid),
            (O::Ready, &[A::Valid], false, O::Ready),
            (O::Ready, &[A::Deactivated], false, O::Invalid),
            (O::Ready, &[A::Valid], true, O::Invalid),
            (O::Processing, &[A::Deactivated], true, O::Processing),
            (O::Valid, &[A::Expired], true, O::Valid),
            (O::Invalid, &[A::Valid], false, O::Invalid),
        ] {
            let settled = settle(status, authorizations.iter().copied(), expired);
            assert_eq!(settled, expected, "{status:?} {authorizations:?} {expired}");
        }
    }

    #[test]
    fn a_validation_starts_once_and_ends_once() {
        let now = SystemTime::UNIX_EPOCH;
        let mut proof = Proof::Pending;
        assert!(!proof.begin(true));
        assert!(proof.begin(false));
        assert_eq!((proof.challenge(), proof.authorization(false)), ("processing", A::Pending));
        assert!(!proof.begin(false));
        proof.end(Ok(()), now);
        assert_eq!((proof.challenge(), proof.authorization(false)), ("valid", A::Valid));
        assert_eq!(proof.authorization(true), A::Expired);
        proof.end(Err(Problem::malformed("too late")), now);
        assert_eq!(proof.authorization(false), A::Valid);
        assert!(proof.deactivate());
        assert_eq!((proof.challenge(), proof.authorization(false)), ("valid", A::Deactivated));
        assert!(!proof.deactivate());
    }

    #[test]
    fn a_validation_of_a_given_up_authorization_changes_nothing() {
        let mut proof = Proof::Pending;
        proof.begin(false);
        assert!(proof.deactivate());
        proof.end(Ok(()), SystemTime::UNIX_EPOCH);
        assert_eq!(proof.authorization(false), A::Deactivated);
    }

    fn any_authorization() -> impl Strategy<Value = A> {
        prop::sample::select(vec![A::Pending, A::Valid, A::Invalid, A::Deactivated, A::Expired])
    }

    proptest! {
        #[test]
        fn ready_only_with_every_authorization_valid(
            from in prop::sample::select(vec![O::Pending, O::Ready]),
            authorizations in prop::collection::vec(any_authorization(), 1..6),
            expired: bool,
        ) {
            let settled = settle(from, authorizations.iter().copied(), expired);
            let all_valid = authorizations.iter().all(|status| *status == A::Valid);
            prop_assert_eq!(settled == O::Ready, all_valid && !expired);
            // Settling again changes nothing, and nothing leads out of a final state.
            prop_assert_eq!(settle(settled, authorizations.iter().copied(), expired), settled);
            prop_assert!(!settled.is_final() || settle(settled, std::iter::once(A::Valid), false) == settled);
        }
    }
}
