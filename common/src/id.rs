//! Numbers with a meaning: app, role, identity, epoch, peer.

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($raw:ty)) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        crate::wire_newtype!($name($raw));
    };
}

number! {
    /// An application, the unit of segmentation. 24 bits: it is the VNI on the wire (RFC 7348).
    /// 0 is no app; 1 to 15 are reserved for identities that are not applications.
    AppId(u32)
}

number! {
    /// A tier inside an app. It is the group policy id on the wire.
    /// 0 is an endpoint without a role; the two highest numbers are reserved.
    RoleId(u16)
}

number! {
    /// Bumped whenever policy or placement changes. Its lowest bit names the half of the rule sets in
    /// force, so one aligned store swaps the whole policy.
    Epoch(u32)
}

number! {
    /// Another host, as an index into the table of peers.
    PeerId(u32)
}

impl AppId {
    /// Matches every application in a rule; never the app of a packet.
    pub const ANY: Self = Self(0);
    /// The hosts themselves: this one and its peers.
    pub const HOST: Self = Self(1);
    /// Everything that is neither an endpoint nor a host.
    pub const OUTSIDE: Self = Self(2);
    /// The first number that an application can have.
    pub const FIRST: Self = Self(16);
    /// The last number that fits a VNI.
    pub const LAST: Self = Self(0x00ff_ffff);

    /// An application's number: between [`Self::FIRST`] and [`Self::LAST`].
    pub const fn new(raw: u32) -> Option<Self> {
        if raw >= Self::FIRST.0 && raw <= Self::LAST.0 { Some(Self(raw)) } else { None }
    }

    /// Whether this is an application, not the host, the outside or nothing.
    pub const fn is_application(self) -> bool {
        self.0 >= Self::FIRST.0
    }
}

impl RoleId {
    /// An endpoint that was given no role.
    pub const NONE: Self = Self(0);
    /// The last number that a role can have.
    pub const LAST: Self = Self(0xfffd);
    /// Matches every role in a rule; never the role of a packet.
    pub const ANY: Self = Self(0xfffe);
    /// An endpoint of another host whose role this host has not been told. Rules treat it as the most
    /// favourable of the app's roles: the host that has the endpoint decides with the real one.
    pub const UNKNOWN: Self = Self(0xffff);

    /// A role's number: between 1 and [`Self::LAST`].
    pub const fn new(raw: u16) -> Option<Self> {
        if raw >= 1 && raw <= Self::LAST.0 { Some(Self(raw)) } else { None }
    }
}

impl Epoch {
    /// Never in force: what carries it is decided on anew. It is not 0 either, which tables have that nobody has written.
    pub const NONE: Self = Self(u32::MAX);

    /// Which half of the rule sets is in force: 0 or 1.
    pub const fn slot(self) -> u8 {
        (self.0 & 1) as u8
    }

    /// The epoch after this one, whose sets are in the other half.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 >= Self::NONE.0 - 1 { Self(1) } else { Self(self.0 + 1) }
    }
}

crate::wire! {
    /// What rules speak about. An address never decides.
    pub struct Identity {
        /// The application, or one of the reserved numbers.
        pub app: AppId,
        /// The tier inside it.
        pub role: RoleId,
        /// Zero.
        pub reserved: u16,
    }
}

impl Identity {
    /// This host or a peer.
    pub const HOST: Self = Self::new(AppId::HOST, RoleId::NONE);
    /// Everything outside the cluster.
    pub const OUTSIDE: Self = Self::new(AppId::OUTSIDE, RoleId::NONE);

    /// The identity of `role` in `app`.
    pub const fn new(app: AppId, role: RoleId) -> Self {
        Self { app, role, reserved: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_never_comes_to_an_epoch_that_is_none() {
        for before in [0, 1, 7, u32::MAX - 3, u32::MAX - 2, u32::MAX - 1].map(Epoch) {
            let next = before.next();
            assert!(next != Epoch::NONE && next != Epoch::default(), "{before:?}");
            assert_ne!(next.slot(), before.slot(), "{before:?}");
        }
    }
}
