use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    let args = line.split('|').map(str::to_owned);
    Cli::try_parse_from(std::iter::once("weft".to_owned()).chain(args)).map_err(|error| error.to_string())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for() {
    fn check(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn commands_are_read() {
    for line in [
        "app|ls",
        "app|show|shop",
        "app|rm|shop",
        "app|add|shop|--prefix|10.1.0.0/16|--prefix|fd00:1::/64|--role|web|--role|db|--inside|closed|--from-apps|open",
        "attach|4711|--app|shop",
        "attach|/run/netns/a|--app|shop|--role|web|--name|web-1|--ip|10.1.0.7|--ip|fd00:1::7|--ifname|eth2",
        "attach|web|--app|shop|--mac|02:00:00:00:00:07|--gateway|10.1.0.1",
        "attach|web|--app|shop|--no-default-route",
        "attach|web|--app|shop|--label|tier=db|--label|env=|--port|http=tcp/80",
        "label|shop/web-1|env=prod|tier-",
        "app|set|shop|--label|team=a|--label|old-|--prefix|10.9.0.0/16|--block|h1=10.9.1.0/24|--inside|closed",
        "why|-",
        "detach|shop/web-1",
        "detach|4711|--app|shop",
        "ps|--json",
        "--json|ps",
        "allow|shop/web|to|blog/db|tcp/5432|--precedence|7|--name|x",
        "allow|shop|blog|--for|10m",
        "deny|--remove|shop -> blog",
        "reject|any|shop",
        "policy|ls",
        "policy|show|shop",
        "policy|rm|#7",
        "policy|rm|allow shop -> blog|--wait",
        "policy|apply|-f|a.yaml|-f|dir|-f|-",
        "policy|apply|--file|a.yaml|--wait=7|--host-socket|h2=/run/h2.sock",
        "policy|delete|blog|networkpolicy/shop/web",
        "policy|delete|-f|a.yaml|--wait",
        "policy|diff|-f|a.yaml",
        "policy|export",
        "policy|export|blog|--all",
        "policy|validate|-f|a.yaml|--cluster|cluster.toml",
        "policy|test|-f|a.yaml|--cluster|cluster.toml|--junit|out.xml",
        "policy|matrix",
        "policy|matrix|--port|tcp/80|--port|icmp|--app|shop|--svg|m.svg",
        "policy|matrix|-f|a.yaml|--cluster|cluster.toml",
        "policy|schema",
        "why|shop/web|blog/db|tcp/5432|--live",
        "flows|--app|shop|--endpoint|web-1|--address|fd00::1|--port|80|--protocol|tcp|--limit|3",
        "drops",
        "drops|-f",
        "drops|--follow",
        "traffic",
        "peers",
        "status|--socket|/tmp/x.sock|--color|never",
        "maps",
        "maps|ROUTES|--limit|7",
        "doctor",
        "reset",
        "reset|--yes",
        "completions|bash",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let check = |line: &str, part: &str| {
        let error = parse(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    };
    check("attach|4711", "--app");
    check("attach|4711|--app|Shop", "\"Shop\" is no app name: use a-z");
    check("attach|a/b|--app|shop", "\"a/b\" is no target");
    check("attach|a|--app|shop|--ip|10.0.0.1/24", "\"10.0.0.1/24\" is no address");
    check("attach|a|--app|shop|--mac|x", "\"x\" is no MAC");
    check("attach|a|--app|shop|--gateway|x", "\"x\" is no gateway");
    check("attach|a|--app|shop|--gateway|none|--no-default-route", "cannot be used with");
    check("app|add|shop", "--prefix");
    check("app|add|shop|--prefix|10.0.0.1/8", "host bits are set, use 10.0.0.0/8");
    check("app|add|shop|--prefix|10.0.0.0/8|--inside|ajar", "\"ajar\" is no default");
    check("allow", "WORDS");
    check("allow|a|b|--for|10m|--remove", "cannot be used with");
    // What always failed is not offered.
    check("deny|a|b|--for|10m", "unexpected argument '--for'");
    check("reject|a|b|--for|10m", "unexpected argument '--for'");
    check("allow|a|b|--precedence|07", "\"07\" is no precedence");
    check("attach|a|--app|shop|--label|tier", "\"tier\" is no label");
    check("attach|a|--app|shop|--port|http=80", "\"80\" is no protocol");
    check("label|shop/web-1|tier", "\"tier\" is no label");
    check("label|shop/web-1", "required");
    check("app|set|shop|--block|h1", "\"h1\" is no block");
    check("policy|rm|#x", "is no rule number");
    check("policy|apply", "--file");
    check("policy|delete", "<NAME>");
    check("policy|delete|Blog", "is no policy name");
    check("policy|apply|-f|a|--host-socket|h2=/x", "--wait");
    check("policy|apply|-f|a|--wait|--host-socket|h2", "\"h2\" is no socket of a host: write HOST=PATH");
    check("policy|matrix|--port|tcp/80-90", "name one protocol and one port");
    check("flows|--protocol|gre", "\"gre\" is no protocol");
    check("completions|cmd", "[possible values: bash");
    check("status|--color|maybe", "[possible values: auto, always, never]");
    check("stats", "unrecognized subcommand");
}

#[test]
fn the_socket_is_the_argument_or_the_environment_or_the_usual_one() {
    let socket = |line: &str, environment: Option<&str>| parse(line).unwrap().socket(environment.map(Into::into));
    assert_eq!(socket("ps|--socket|/a", Some("/b")), PathBuf::from("/a"));
    assert_eq!(socket("ps", Some("/b")), PathBuf::from("/b"));
    assert_eq!(socket("ps", Some("")), PathBuf::from("/run/weft/weft.sock"));
    assert_eq!(socket("ps", None), PathBuf::from("/run/weft/weft.sock"));
}
