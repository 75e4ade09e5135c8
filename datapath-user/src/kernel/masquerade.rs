//! Source address translation of what containers send outside: a table of nftables that is ours alone.
//!
//! Written in one transaction, read back from what the kernel runs. Invariant: no other table is touched, and packets
//! never see half of a change.

use std::{collections::BTreeSet, io, net::IpAddr};

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

/// What is translated: packets from these prefixes that leave by any interface but one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Where the packets come from.
    pub prefixes: BTreeSet<IpNet>,
    /// The interface by which they stay inside.
    pub except: String,
}

impl Masquerade {
    /// What the kernel does now. None: there is no such table, or it is not as we write it.
    pub fn installed() -> Result<Option<Self>> {
        let question = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(CHAIN.to_owned())],
        });
        let answers = match netlink::dump(NETLINK_NETFILTER, message(question, NetfilterProtoFamily::Inet)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answers => answers.context("list rules of table weft")?,
        };
        let mut installed: Option<Self> = None;
        for answer in answers {
            let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = answer.inner else { continue };
            // The kernel's list may be longer than the question.
            if !rule.attributes.contains(&RuleAttribute::Table(TABLE.to_owned())) {
                continue;
            }
            let Some((prefix, except)) = read(&rule) else { return Ok(None) };
            let installed = installed.get_or_insert_with(|| Self { prefixes: BTreeSet::new(), except: except.clone() });
            if installed.except != except || !installed.prefixes.insert(prefix) {
                return Ok(None);
            }
        }
        Ok(installed)
    }

    /// Puts this in the place of whatever is in our table.
    pub fn install(&self) -> Result<()> {
        let rules = self.prefixes.iter().map(|prefix| NfTablesMessage::NewRule(rule(prefix.trunc(), &self.except)));
        // The table is made so that it can be deleted, whether there was one or not.
        let orders = [new_table(), delete_table(), new_table(), new_chain()].into_iter().chain(rules);
        transact(orders).with_context(|| format!("install source translation in table {TABLE}"))
    }

    /// Removes our table. That there is none is success.
    pub fn remove() -> Result<()> {
        transact([new_table(), delete_table()]).with_context(|| format!("remove table {TABLE}"))
    }
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
        let mut message = message(order, NetfilterProtoFamily::Inet);
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

fn message(order: NfTablesMessage, family: NetfilterProtoFamily) -> NetlinkMessage<NetfilterMessage> {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), order).into()
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
    let list = rule.attributes.iter().find_map(|attribute| {
        if let RuleAttribute::Expressions(list) = attribute { Some(list) } else { None }
    })?;
    let elements = list.iter().filter_map(|element| {
        if let ListAttribute::Element(attributes) = element { Some(attributes) } else { None }
    });
    let data = |attribute| if let &ExpressionAttribute::Data(ref data) = attribute { Some(data) } else { None };
    elements.map(|attributes| attributes.iter().find_map(data)).collect()
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
