//! Source address translation of what containers send outside: a table of nftables that is ours alone.
//!
//! Written in one transaction, read back from what the kernel runs. Invariant: no other table is touched, and packets
//! never see half of a change.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook,
        InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute,
        RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage},
    sys::protocols::NETLINK_NETFILTER,
};

use super::netlink;

/// Our table, of family inet.
pub const TABLE: &str = "weft";

const CHAIN: &str = "postrouting";

/// `NF_IP_PRI_NAT_SRC`: where source translation is.
const PRIORITY: u32 = 100;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;

/// `IFNAMSIZ`.
const NAME_LENGTH: usize = 16;

/// What is translated: packets from these prefixes that leave by any interface but one. Without prefixes there is no
/// table, and no interface to speak of.
#[derive(Clone, Debug)]
pub struct Masquerade {
    /// Where the packets come from.
    pub prefixes: BTreeSet<IpNet>,
    /// The interface by which they stay inside.
    pub except: String,
}

impl Masquerade {
    /// Sees to it that the kernel does this and nothing else in our table. Says whether it had to be changed.
    pub fn ensure(&self) -> Result<bool> {
        let is_there = Self::installed()?.is_some_and(|installed| installed == self.normal());
        if !is_there {
            self.install()?;
        }
        Ok(!is_there)
    }

    /// What the kernel does now. None: our table is not as we write it.
    pub fn installed() -> Result<Option<Self>> {
        let mut rules = rules()?.into_iter();
        let Some(first) = rules.next() else {
            let nothing = Self { prefixes: BTreeSet::new(), except: String::new() };
            return Ok((!table_exists()?).then_some(nothing));
        };
        let Some((prefix, except)) = read(&first) else { return Ok(None) };
        let mut prefixes = BTreeSet::from([prefix]);
        for rule in rules {
            match read(&rule) {
                Some((prefix, other)) if other == except && prefixes.insert(prefix) => {}
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(Self { prefixes, except }))
    }

    /// Puts this in the place of whatever is in our table.
    pub fn install(&self) -> Result<()> {
        let Self { prefixes, except } = self.normal();
        if prefixes.is_empty() {
            return Self::remove().map(|_| ());
        }
        let rules = prefixes.into_iter().map(|prefix| NfTablesMessage::NewRule(rule(prefix, &except)));
        // The table is made so that it can be deleted, whether there was one or not.
        let orders = [new_table(), delete_table(), new_table(), new_chain()].into_iter().chain(rules);
        transact(orders).with_context(|| format!("install source translation in table {TABLE}"))
    }

    /// Removes our table. Says whether there was one.
    pub fn remove() -> Result<bool> {
        let is_there = table_exists()?;
        if is_there {
            transact([new_table(), delete_table()]).with_context(|| format!("remove table {TABLE}"))?;
        }
        Ok(is_there)
    }

    /// As the kernel tells it.
    fn normal(&self) -> Self {
        Self { prefixes: self.prefixes.iter().map(IpNet::trunc).collect(), except: self.except.clone() }
    }
}

impl PartialEq for Masquerade {
    fn eq(&self, other: &Self) -> bool {
        self.prefixes == other.prefixes && (self.prefixes.is_empty() || self.except == other.except)
    }
}

impl Eq for Masquerade {}

/// Of our table.
fn rules() -> Result<Vec<RuleMessage>> {
    let table = RuleAttribute::Table(TABLE.to_owned());
    let question = NfTablesMessage::GetRule(RuleMessage { attributes: vec![table.clone()] });
    let answers = netlink::dump(NETLINK_NETFILTER, message(question)).context("list rules of nftables")?;
    let rules = answers.into_iter().filter_map(|answer: NetfilterMessage| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = answer.inner else { return None };
        // A kernel that does not look at the question lists them all.
        let is_ours = answer.header.family == NetfilterProtoFamily::Inet && rule.attributes.contains(&table);
        is_ours.then_some(rule)
    });
    Ok(rules.collect())
}

fn table_exists() -> Result<bool> {
    let question = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let answers = netlink::dump(NETLINK_NETFILTER, message(question)).context("list tables of nftables")?;
    let ours = TableAttribute::Name(TABLE.to_owned());
    Ok(answers.iter().any(|answer: &NetfilterMessage| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &answer.inner else { return false };
        answer.header.family == NetfilterProtoFamily::Inet && table.attributes.contains(&ours)
    }))
}

fn transact(orders: impl IntoIterator<Item = NfTablesMessage>) -> Result<()> {
    let control = |what| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
        let mut message = NetlinkMessage::from(NetfilterMessage::new(header, what));
        message.header.flags = NLM_F_REQUEST;
        message
    };
    let mut messages = vec![control(ControlMessage::BatchBegin)];
    for order in orders {
        let mut message = message(order);
        message.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND;
        messages.push(message);
    }
    // The answer to the last order comes after the transaction.
    if let Some(last) = messages.last_mut() {
        last.header.flags |= NLM_F_ACK;
    }
    messages.push(control(ControlMessage::BatchEnd));
    netlink::converse(NETLINK_NETFILTER, messages)?;
    Ok(())
}

fn message(order: NfTablesMessage) -> NetlinkMessage<NetfilterMessage> {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), order).into()
}

fn new_table() -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] })
}

fn delete_table() -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] })
}

fn new_chain() -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Type("nat".to_owned()),
            ChainAttribute::Hook(vec![Hook::Number(InetHookNumber::PostRouting.into()), Hook::Priority(PRIORITY)]),
        ],
    })
}

/// `ip saddr <prefix> oifname != <except> masquerade`.
fn rule(prefix: IpNet, except: &str) -> RuleMessage {
    let (address, mask) = (octets(prefix.addr()), octets(prefix.netmask()));
    let length = u32::try_from(address.len()).unwrap_or(0);
    let load = |key| Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)]);
    let compare = |op, data| {
        let data = Cmp::Data(DataAttribute::Value(data));
        Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(op), data])
    };
    let expressions = vec![
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family(prefix)]),
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NETWORK_HEADER),
            Payload::Offset(source_offset(prefix)),
            Payload::Len(length),
        ]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Mask(DataAttribute::Value(mask)),
            Bitwise::Xor(DataAttribute::Value(vec![0; address.len()])),
        ]),
        compare(Operator::Equal, address),
        load(MetaKey::Oifname),
        compare(Operator::NotEqual, name(except)),
        Expressions::Other { expression_type: "masq".to_owned(), attributes: Vec::new() },
    ];
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(CHAIN.to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
        ],
    }
}

/// The prefix and the interface of a rule that is as [`rule`] writes it. The kernel adds attributes to some
/// expressions, so what is there has to contain what was written.
fn read(found: &RuleMessage) -> Option<(IpNet, String)> {
    let have = expressions(found)?;
    let compared = |at: usize| {
        let Expressions::Cmp(attributes) = *have.get(at)? else { return None };
        attributes.iter().find_map(|attribute| {
            if let Cmp::Data(DataAttribute::Value(value)) = attribute { Some(value.as_slice()) } else { None }
        })
    };
    let Expressions::Bitwise(bitwise) = *have.get(3)? else { return None };
    let mask = bitwise.iter().find_map(|attribute| {
        if let Bitwise::Mask(DataAttribute::Value(value)) = attribute { address(value) } else { None }
    });
    let prefix = IpNet::with_netmask(address(compared(4)?)?, mask?).ok()?;
    let except = compared(6)?.split(|byte| *byte == 0).next()?;
    let except = String::from_utf8(except.to_vec()).ok()?;
    let wanted = rule(prefix, &except);
    let wanted = expressions(&wanted)?;
    let same = have.len() == wanted.len() && have.iter().zip(wanted).all(|(have, want)| contains(have, want));
    same.then_some((prefix, except))
}

fn expressions(rule: &RuleMessage) -> Option<Vec<&Expressions>> {
    let list = rule
        .attributes
        .iter()
        .find_map(|attribute| if let RuleAttribute::Expressions(list) = attribute { Some(list) } else { None })?;
    let elements = list
        .iter()
        .filter_map(|element| if let ListAttribute::Element(attributes) = element { Some(attributes) } else { None });
    let data = elements.map(|attributes| {
        attributes.iter().find_map(
            |attribute| {
                if let ExpressionAttribute::Data(data) = attribute { Some(data) } else { None }
            },
        )
    });
    data.collect()
}

fn contains(have: &Expressions, want: &Expressions) -> bool {
    fn all<T: PartialEq>(have: &[T], want: &[T]) -> bool {
        want.iter().all(|attribute| have.contains(attribute))
    }
    match (have, want) {
        (Expressions::Meta(have), Expressions::Meta(want)) => all(have, want),
        (Expressions::Cmp(have), Expressions::Cmp(want)) => all(have, want),
        (Expressions::Payload(have), Expressions::Payload(want)) => all(have, want),
        (Expressions::Bitwise(have), Expressions::Bitwise(want)) => all(have, want),
        (Expressions::Other { expression_type: have, .. }, Expressions::Other { expression_type: want, .. }) => {
            have == want
        }
        _ => false,
    }
}

/// Its number in netfilter.
fn family(prefix: IpNet) -> u8 {
    match prefix {
        IpNet::V4(_) => NetfilterProtoFamily::IPv4.into(),
        IpNet::V6(_) => NetfilterProtoFamily::IPv6.into(),
    }
}

/// Where the source address is in the network header.
fn source_offset(prefix: IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => 12,
        IpNet::V6(_) => 8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

fn name(interface: &str) -> Vec<u8> {
    let mut name = interface.as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        inside::{Inside, InsideRoute, configure},
        link::{Links, Setting, tests::veth},
        netns::{
            run_in,
            tests::{fresh, within, within_async},
        },
        route::Address,
        sysctl,
    };
    use std::{
        net::UdpSocket,
        time::{Duration, Instant},
    };
    use weft_common::addr::Mac;

    fn masquerade(prefixes: &[&str]) -> Masquerade {
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        Masquerade { prefixes, except: "weft0".to_owned() }
    }

    #[test]
    fn what_is_installed_is_read_back_and_once_is_enough() {
        within(|| {
            assert_eq!(Masquerade::installed().unwrap(), Some(masquerade(&[])));
            assert!(!masquerade(&[]).ensure().unwrap());
            Masquerade::remove().unwrap();
            for want in [
                masquerade(&["10.32.0.0/12", "fd00::/8", "0.0.0.0/0", "192.168.77.0/31", "2001:db8::5/128"]),
                masquerade(&["10.32.0.0/12"]),
                masquerade(&["10.32.0.0/13", "10.40.0.0/13"]),
            ] {
                assert!(want.ensure().unwrap());
                assert!(!want.ensure().unwrap());
                assert_eq!(Masquerade::installed().unwrap(), Some(want));
            }
            assert!(!masquerade(&["10.32.1.2/13", "10.40.1.2/13"]).ensure().unwrap());
            assert!(masquerade(&[]).ensure().unwrap());
            assert!(!masquerade(&[]).ensure().unwrap());
            assert!(!table_exists().unwrap());
            Masquerade::remove().unwrap();
        });
    }

    #[test]
    fn tables_of_others_stay_and_a_changed_one_is_seen() {
        within(|| {
            let other = |orders: Vec<NfTablesMessage>| transact(orders).unwrap();
            let name = || TableAttribute::Name("other".to_owned());
            other(vec![NfTablesMessage::NewTable(TableMessage { attributes: vec![name()] })]);
            let want = masquerade(&["10.0.0.0/8", "fd00::/8"]);
            assert!(want.ensure().unwrap());
            // Somebody adds a rule to our chain.
            let mut strange = rule("10.0.0.0/8".parse().unwrap(), "eth0");
            strange.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Expressions(_)));
            let only = Expressions::Other { expression_type: "masq".to_owned(), attributes: Vec::new() };
            strange.attributes.push(RuleAttribute::Expressions(vec![only.into()]));
            other(vec![NfTablesMessage::NewRule(strange)]);
            assert_eq!(Masquerade::installed().unwrap(), None);
            assert!(want.ensure().unwrap());
            assert_eq!(Masquerade::installed().unwrap(), Some(want));
            Masquerade::remove().unwrap();
            // Deleting it fails if it is gone.
            other(vec![NfTablesMessage::DeleteTable(TableMessage { attributes: vec![name()] })]);
        });
    }

    #[test]
    fn a_container_is_seen_outside_by_the_address_of_its_host() {
        let (container, outside) = (fresh(), fresh());
        within_async(async || {
            let links = Links::new().unwrap();
            for (name, peer, address) in [("w-1", &container, "10.32.0.1/24"), ("up", &outside, "192.0.2.1/24")] {
                let link = links.create_veth(&veth(name, "eth0", Some(peer))).await.unwrap();
                links.add_address(Address { link, net: address.parse().unwrap() }).await.unwrap();
                links.set(link, &[Setting::Up]).await.unwrap();
                sysctl::forward_ipv4(name).unwrap();
            }
            let inside = |address: &str, route: Option<(&str, &str)>| Inside {
                interface: "eth0".to_owned(),
                rename: None,
                mac: Mac::new([2, 0, 0, 0, 1, 1]),
                mtu: 1400,
                addresses: vec![address.parse().unwrap()],
                routes: Vec::from_iter(route.map(|(dst, via)| InsideRoute {
                    dst: dst.parse().unwrap(),
                    via: Some(via.parse().unwrap()),
                    metric: None,
                })),
            };
            configure(&container, &inside("10.32.0.5/24", Some(("0.0.0.0/0", "10.32.0.1")))).unwrap();
            configure(&outside, &inside("192.0.2.9/24", Some(("10.32.0.0/24", "192.0.2.1")))).unwrap();
            let bind = |netns, port| run_in(netns, || Ok(UdpSocket::bind(("0.0.0.0", port))?)).unwrap();
            let receiver = bind(&outside, 7000);
            receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            // Another port is another flow: the kernel does not change its mind about one that it knows.
            let source = |port| {
                let sender = bind(&container, port);
                let deadline = Instant::now() + Duration::from_secs(5);
                loop {
                    assert!(Instant::now() < deadline, "nothing arrives");
                    let asked = u16::to_be_bytes(port);
                    sender.send_to(&asked, "192.0.2.9:7000").unwrap();
                    // What was asked before and came late says nothing of now.
                    let mut heard = [0; 2];
                    if let Ok((_, from)) = receiver.recv_from(&mut heard)
                        && heard == asked
                    {
                        return from.ip().to_string();
                    }
                }
            };
            assert_eq!(source(7001), "10.32.0.5");
            masquerade(&["10.32.0.0/24"]).ensure().unwrap();
            assert_eq!(source(7002), "192.0.2.1");
            masquerade(&["10.33.0.0/24"]).ensure().unwrap();
            assert_eq!(source(7003), "10.32.0.5");
            Masquerade { except: "up".to_owned(), ..masquerade(&["10.32.0.0/24"]) }.ensure().unwrap();
            assert_eq!(source(7004), "10.32.0.5");
        });
    }
}
