//! Use cases on a host whose reconciler is the test.

use super::*;
use crate::front::api::{
    Handler as _,
    dto::{
        apps::{AddApp, Changed, DefaultsChange, RemoveApp, SetApp},
        rules::{AddRule, Promote},
    },
};
use crate::model::{example, labels::Labels};
use crate::status::Status;
use crate::store::memory::MemoryStore;

struct Lab {
    service: Service,
    board: Board,
    /// What the service listens to, and nobody answers.
    _ends: (watch::Sender<Arc<NodePlan>>, mpsc::Receiver<Order>),
}

impl Lab {
    fn new() -> Self {
        let host: HostName = "h1".parse().unwrap();
        let store = Arc::new(MemoryStore::new(host.clone(), example::cluster()).unwrap());
        let (plans, plan) = watch::channel(Arc::new(NodePlan::default()));
        let (orders, inbox) = mpsc::channel(1);
        let board = Board::new();
        let observer = Arc::new(Observer::new());
        let parts = Parts { store, board: board.clone(), observer, plan, orders, pins: Pins::new("/none") };
        let service = Service { patience: Duration::from_millis(1), ..Service::new(host, parts) };
        Self { service, board, _ends: (plans, inbox) }
    }

    /// All that answers with a sentence, in an order in which each changes something.
    async fn all(&self) -> Vec<Changed> {
        let name = || "wiki".parse().unwrap();
        let add = AddApp {
            name: name(),
            prefixes: vec!["10.3.0.0/16".parse().unwrap()],
            roles: Vec::new(),
            labels: Labels::default(),
            defaults: DefaultsChange::default(),
            blocks: Vec::new(),
        };
        let set = SetApp {
            name: name(),
            prefixes: Vec::new(),
            without: Vec::new(),
            set: Labels::default(),
            unset: Vec::new(),
            defaults: DefaultsChange::default(),
            shadow: Some(true),
            blocks: Vec::new(),
        };
        let rule = || "allow shop -> blog udp/53 as x".parse::<crate::model::rule::Rule>().unwrap();
        let tried = crate::model::rule::Rule { shadow: true, ..rule() };
        self.service.add_rule(AddRule { rule: tried }).await.unwrap();
        let promote = Promote { rule: Some("x".parse().unwrap()), policy: None };
        let made = vec![
            self.service.add_app(add).await.unwrap(),
            self.service.set_app(set).await.unwrap(),
            self.service.promote(promote).await.unwrap(),
            self.service.remove_app(RemoveApp { name: name() }).await.unwrap(),
        ];
        let which = crate::store::change::RuleRef::Saying(Box::new(rule()));
        self.service.change(crate::store::change::Change::RemoveRule(which)).await.unwrap();
        made
    }
}

#[tokio::test]
async fn a_change_that_is_not_in_force_in_time_is_not_told_as_one_that_is() {
    let lab = Lab::new();
    let told = |made: Vec<Changed>| made.into_iter().map(|made| (made.done, made.in_force)).collect::<Vec<_>>();
    let done = [
        "app wiki is there; give hosts blocks of its prefixes: weft app set --block",
        "app wiki is as you said",
        "rule shadow allow shop -> blog udp/53 as x is promoted",
        "app wiki is gone",
    ];
    let expect = |in_force| done.map(|done| (done.to_owned(), in_force)).to_vec();
    assert_eq!(told(lab.all().await), expect(false));
    lab.board.post(Status { revision: u64::MAX, ..Status::default() });
    assert_eq!(told(lab.all().await), expect(true));
}
