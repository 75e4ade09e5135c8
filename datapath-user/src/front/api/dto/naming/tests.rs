use super::*;

fn read<T: FromStr<Err = Invalid> + fmt::Display>(text: &str) -> String {
    text.parse::<T>().map_or_else(|error| error.to_string(), |value| value.to_string())
}

#[test]
fn targets_are_told_apart() {
    let target = |text: &str| text.parse::<Target>();
    assert_eq!(target("4711"), Ok(Target::Pid(4711)));
    assert_eq!(target("4194304"), Ok(Target::Pid(4_194_304)));
    assert_eq!(target("/run/netns/a"), Ok(Target::Path("/run/netns/a".parse().unwrap())));
    for name in ["web-1", "shop_web.1", "012345678901", "4194305", "99999999999999999999", "3f2a"] {
        assert_eq!(target(name), Ok(Target::Name(name.parse().unwrap())), "{name}");
    }
    for text in ["", "0", "..", ".x", "-x", "a/b", "a b", "a\u{1b}[2J", "\u{e9}", "netns/a"] {
        let error = target(text).unwrap_err().to_string();
        assert!(error.contains(" is no ") && error.is_ascii(), "{error}");
    }
}

#[test]
fn what_is_detached_is_an_endpoint_or_a_target() {
    let what = |text: &str| text.parse::<Detachable>();
    assert_eq!(what("shop/web-1"), Ok(Detachable::Endpoint("shop/web-1".parse().unwrap())));
    assert_eq!(what("/run/netns/a"), Ok(Detachable::Target("/run/netns/a".parse().unwrap())));
    assert_eq!(what("web-1"), Ok(Detachable::Target("web-1".parse().unwrap())));
    assert_eq!(what("7"), Ok(Detachable::Target(Target::Pid(7))));
    assert!(what("shop/").is_err());
}

#[test]
fn gateways_say_what_becomes_of_the_default_route() {
    for (text, route) in [
        ("auto", DefaultRoute::IfNone),
        ("replace", DefaultRoute::Replace),
        ("none", DefaultRoute::Leave),
        ("10.1.0.1", DefaultRoute::Replace),
        ("fd00::1", DefaultRoute::Replace),
    ] {
        assert_eq!(read::<Gateway>(text), text);
        assert_eq!(text.parse::<Gateway>().unwrap().default_route(), route);
    }
    assert!(read::<Gateway>("10.1.0.1/24").contains("is no gateway: use auto"));
}

#[test]
fn rules_are_named_in_three_ways() {
    let which = |text: &str| text.parse::<WhichRule>();
    assert_eq!(which("#7"), Ok(WhichRule::Id(7)));
    assert_eq!(which("7"), Ok(WhichRule::Name("7".parse().unwrap())));
    let Ok(WhichRule::Says(rule)) = which("deny shop->blog") else { panic!() };
    assert_eq!(rule.to_string(), "deny shop -> blog any");
    assert!(read::<WhichRule>("#x").contains("is no rule number"));
    assert!(read::<WhichRule>("#-1").contains("is no rule number"));
    assert!(read::<WhichRule>("permit a -> b").contains("is no action"));
}

#[test]
fn parties_are_told_apart() {
    let party = |text: &str| text.parse::<Party>();
    assert_eq!(party("host"), Ok(Party::Host));
    assert_eq!(party("outside"), Ok(Party::Outside));
    assert_eq!(party("10.0.0.1"), Ok(Party::Address("10.0.0.1".parse().unwrap())));
    assert_eq!(party("fd00::1"), Ok(Party::Address("fd00::1".parse().unwrap())));
    assert_eq!(party("web-1"), Ok(Party::Name("web-1".parse().unwrap())));
    assert_eq!(party("shop/web"), Ok(Party::Member("shop".parse().unwrap(), "web".parse().unwrap())));
    for text in ["any", "", "shop/", "/web", "host/web", "10.0.0.0/8", "::ffff:10.0.0.1", "A", "a/b/c"] {
        let error = party(text).unwrap_err().to_string();
        assert!(error.contains(" is no "), "{text}: {error}");
    }
}

#[test]
fn a_probe_is_one_packet() {
    let check = |text: &str, v4: (u8, u16), v6: (u8, u16)| {
        let probe = text.parse::<Probe>().unwrap();
        assert_eq!((probe.of(Family::V4), probe.of(Family::V6)), (v4, v6), "{text}");
        assert_eq!(probe.to_string().parse::<Probe>().unwrap().v4, v4, "{text}");
    };
    check("tcp/5432", (6, 5432), (6, 5432));
    check("udp/53", (17, 53), (17, 53));
    check("sctp/9", (132, 9), (132, 9));
    check("icmp", (1, 0x0800), (58, 0x8000));
    check("icmp/0", (1, 0), (58, 0x8100));
    check("icmp/8/1", (1, 0x0801), (58, 0x8001));
    check("icmp/3/4", (1, 0x0304), (1, 0x0304));
    check("icmpv6", (58, 0x8000), (58, 0x8000));
    check("icmpv6/135", (58, 0x8700), (58, 0x8700));
    for text in ["any", "tcp", "tcp/80,443", "udp/1-2", "gre", "tcp/0", ""] {
        assert!(read::<Probe>(text).contains(" is no "), "{text}");
    }
}

#[test]
fn protocols_have_names_and_numbers() {
    for (text, printed) in [("tcp", "tcp"), ("6", "tcp"), ("58", "icmpv6"), ("47", "47")] {
        assert_eq!(read::<Protocol>(text), printed);
    }
    for text in ["256", "-1", "gre", ""] {
        assert!(read::<Protocol>(text).contains("is no protocol"));
    }
}
