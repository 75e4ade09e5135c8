//! What people see of every answer, and that no answer can do anything to their terminal.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    app, drops, endpoint, flow,
    maps::{self, Shown},
    page::{Colour, Page},
    policy, state, why,
};
use crate::front::api::example;

fn page(print: impl FnOnce(&mut Page)) -> String {
    let mut page = Page::new(Colour::Off);
    print(&mut page);
    page.into_text()
}

#[test]
fn dump() {
    let now = example::time(8);
    println!("{}", page(|p| app::list(p, &example::app_list())));
    println!("{}", page(|p| app::detail(p, &example::app_detail(), now)));
    println!("{}", page(|p| app::changed(p, &example::changed())));
    println!("{}", page(|p| endpoint::list(p, &example::endpoint_list(), now)));
    println!("{}", page(|p| endpoint::attached(p, &example::attached())));
    println!("{}", page(|p| endpoint::detached(p, &example::detached())));
    println!("{}", page(|p| policy::list(p, &example::rule_list())));
    println!("{}", page(|p| policy::show(p, &example::policy())));
    println!("{}", page(|p| policy::change(p, &example::rule_change(), "added")));
    println!("{}", page(|p| why::answer(p, &example::why())));
    println!("{}", page(|p| flow::list(p, &example::flow_list())));
    println!("{}", page(|p| flow::traffic(p, &example::traffic_list())));
    println!("{}", page(|p| drops::list(p, &example::drop_list(), now)));
    println!("{}", page(|p| drops::one(p, &example::dropped(), None)));
    println!("{}", page(|p| maps::list(p, &example::map_list(), Shown::All)));
    println!("{}", page(|p| maps::list(p, &example::map_list(), Shown::Differing)));
    println!("{}", page(|p| state::peers(p, &example::peer_list())));
    println!("{}", page(|p| state::status(p, &example::status(), now)));
    println!("{}", page(|p| state::diagnosis(p, &example::diagnosis())));
    println!("{}", page(|p| state::reset(p, &example::reset_done())));
}
