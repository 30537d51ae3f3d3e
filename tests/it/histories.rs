//! Random histories of a browser with several tabs, a thief and two nodes, held against a small model that
//! says what every single request gets. Three sentences are what it is about:
//!
//! - an honest client is never logged out, unless it presents a predecessor later than the grace after
//!   somebody presented the successor;
//! - a copied ID that is used after its retirement ends the chain;
//! - nothing ever forks a chain.
//!
//! S26, S32-S37, S39, S45, S56, VR-01, VR-20, VR-45

mod model;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::model::ABSOLUTE;
use self::model::Chain;
use self::model::EVERY;
use self::model::GRACE;
use self::model::Id;
use self::model::Model;
use self::model::NEAR;
use self::model::OWNER;
use self::model::Place;
use self::model::Verdict;
use self::world::Got;
use self::world::World;
use crate::support::empty;
use crate::support::labelled;
use crate::support::redis::Redis;

const USERS: [&str; 2] = ["alice", "bob"];
#[derive(Clone, Debug)]
enum Step {
    /// The owner logs a user in.
    Login(usize),
    /// The owner logs out.
    Logout,
    /// A tab of a browser (the owner's, or the thief's with what was stolen) loads a page; the answer may be
    /// lost on the way.
    Load { jar: usize, is_lost: bool },
    /// It shows an image.
    Show { jar: usize },
    /// It loads a page that takes its time.
    Begin { jar: usize },
    /// The answer to one of those comes, or is lost.
    Finish { which: usize, is_lost: bool },
    /// Many requests at once at both nodes: some tabs have the browser's ID, some its successor already.
    Burst { jar: usize },
    /// The thief copies the owner's cookies.
    Steal,
    /// Somebody presents an ID that was given out so many IDs ago.
    Replay { age: usize, place: usize },
    /// A retired ID and the one in use, at the same moment.
    Clash { jar: usize },
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let jar = || prop_oneof![3 => Just(OWNER), 1 => Just(NEAR)];
    let pause = prop_oneof![
        3 => 1..GRACE + 2,
        2 => Just(GRACE - 1),
        3 => Just(EVERY),
        2 => EVERY - 40..EVERY + 40,
        1 => 1790..1810_u64,
    ];
    prop_oneof![
        1 => (0..2_usize).prop_map(Step::Login),
        1 => Just(Step::Logout),
        9 => (jar(), prop::bool::weighted(0.2)).prop_map(|(jar, is_lost)| Step::Load { jar, is_lost }),
        1 => jar().prop_map(|jar| Step::Show { jar }),
        2 => jar().prop_map(|jar| Step::Begin { jar }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, is_lost)| Step::Finish { which, is_lost }),
        2 => jar().prop_map(|jar| Step::Burst { jar }),
        1 => Just(Step::Steal),
        4 => (0..4_usize, 0..3_usize).prop_map(|(age, place)| Step::Replay { age, place }),
        1 => jar().prop_map(|jar| Step::Clash { jar }),
        8 => pause.prop_map(Step::Wait),
    ]
}

fn page(path: &str) -> Request<Full<Bytes>> {
    empty(labelled("GET", &format!("https://app.test{path}"), "same-origin", "cors", "empty"))
}

/// A page that takes its time.
struct Slow {
    place: Place,
    jar: usize,
    release: Arc<Notify>,
    answer: JoinHandle<Got>,
}

struct History<'a> {
    world: &'a mut World,
    model: Model,
    /// What the owner's browser and the thief's have for our cookie.
    jars: [String; 2],
    slow: Vec<Slow>,
    turn: usize,
}

impl<'a> History<'a> {
    async fn run(world: &'a mut World, steps: &[Step]) {
        // Nothing is left of the last one.
        world.advance(2 * ABSOLUTE);
        let model = Model { now: 0, idle: world.idle, chains: Vec::new() };
        let mut history = Self { world, model, jars: Default::default(), slow: Vec::new(), turn: 0 };
        for step in steps {
            history.take(step).await;
            if !matches!(step, Step::Wait(_) | Step::Steal) {
                history.world.settle().await;
            }
        }
        while !history.slow.is_empty() {
            history.finish(0, true).await;
        }
    }

    /// The nodes in turn, so that what one did is seen by the other.
    fn node(&mut self) -> usize {
        self.turn += 1;
        self.turn % 2
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Login(user) => self.log_in(USERS[user]).await,
            Step::Logout => self.log_out().await,
            Step::Load { jar: OWNER, .. } if self.is_logged_out() => self.log_in(USERS[0]).await,
            Step::Load { jar, is_lost } => self.load(jar, page("/"), is_lost).await,
            Step::Show { jar } => self.show(jar).await,
            Step::Begin { jar } => self.begin(jar).await,
            Step::Finish { which, is_lost } => {
                if let Some(which) = which.checked_rem(self.slow.len()) {
                    self.finish(which, is_lost).await;
                }
            }
            Step::Burst { jar } => self.burst(jar).await,
            Step::Steal => self.jars[NEAR] = self.jars[OWNER].clone(),
            Step::Replay { age, place } => self.replay(age, place).await,
            Step::Clash { jar } => self.clash(jar).await,
            Step::Wait(seconds) => {
                self.world.advance(seconds);
                self.model.now += seconds;
            }
        }
    }

    fn held(&self, jar: usize) -> Option<Place> {
        self.model.find(&self.jars[jar])
    }

    /// What the owner has got, and knows.
    fn is_logged_out(&self) -> bool {
        self.held(OWNER).is_none_or(|place| self.model.verdict(place, OWNER) == Verdict::Out)
    }

    /// Whether an answer is what the model says.
    fn judge(&mut self, place: Place, from: usize, got: &Got) -> Verdict {
        let verdict = self.model.present(place, from);
        match (verdict, got.status) {
            (Verdict::In, 200) => assert_eq!(got.user, self.model.chains[place.0].user),
            (Verdict::In, status) => panic!("an honest client was logged out: {status}"),
            (Verdict::Out | Verdict::Reuse, 401) => assert!(got.ours.is_none()),
            (Verdict::Out | Verdict::Reuse, status) => panic!("{verdict:?}, and yet {status}"),
        }
        verdict
    }

    /// The new ID in an answer that leaves now.
    fn keep(&mut self, place: Place, jar: usize, got: &Got, is_lost: bool) {
        if got.status == 200 {
            self.model.handed(place, got.new_id());
            if let (false, Some(new)) = (is_lost, got.new_id()) {
                new.clone_into(&mut self.jars[jar]);
            }
        }
    }

    async fn replay(&mut self, age: usize, from: usize) {
        let all = self.model.chains.iter().enumerate().rev();
        let ids = all.flat_map(|(at, chain)| (0..chain.ids.len()).rev().map(move |id| (at, id))).collect::<Vec<_>>();
        let Some(place) = ids.get(age).copied() else { return };
        let id = self.model.chains[place.0].ids[place.1].value.clone();
        let node = self.node();
        let got = self.world.ask(node, from, &id, page("/")).await.unwrap();
        self.judge(place, from, &got);
        self.keep(place, from, &got, true);
    }

    async fn show(&mut self, jar: usize) {
        let image = labelled("GET", "https://app.test/x.png", "same-origin", "no-cors", "image");
        let Some(place) = self.held(jar) else { return };
        let (node, id) = (self.node(), self.jars[jar].clone());
        let got = self.world.ask(node, jar, &id, empty(image)).await.unwrap();
        let verdict = self.judge(place, jar, &got);
        if verdict == Verdict::In && self.model.is_overdue(place.0) {
            self.keep(place, jar, &got, false);
        } else {
            assert_eq!(got.ours, None, "an image brings no new ID");
        }
    }

    async fn load(&mut self, jar: usize, request: Request<Full<Bytes>>, is_lost: bool) {
        let Some(place) = self.held(jar) else { return };
        let (node, id) = (self.node(), self.jars[jar].clone());
        let got = self.world.ask(node, jar, &id, request).await.unwrap();
        self.judge(place, jar, &got);
        self.keep(place, jar, &got, is_lost);
    }

    async fn begin(&mut self, jar: usize) {
        let Some(place) = self.held(jar) else { return };
        if self.model.verdict(place, jar) != Verdict::In {
            return self.load(jar, page("/slow"), true).await;
        }
        let (node, id) = (self.node(), self.jars[jar].clone());
        let answer = self.world.ask(node, jar, &id, page("/slow"));
        let release = self.world.arrived.recv().await.unwrap();
        assert_eq!(self.model.present(place, jar), Verdict::In);
        self.slow.push(Slow { place, jar, release, answer });
    }

    async fn finish(&mut self, which: usize, is_lost: bool) {
        let Slow { place, jar, release, answer } = self.slow.remove(which);
        release.notify_one();
        let got = answer.await.unwrap();
        assert_eq!((got.status, got.user.as_str()), (200, self.model.chains[place.0].user));
        self.keep(place, jar, &got, is_lost);
    }

    async fn log_in(&mut self, user: &'static str) {
        let (node, id) = (self.node(), self.jars[OWNER].clone());
        let request = labelled("POST", "https://app.test/login", "same-origin", "navigate", "document");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Full::from(format!("username={user}"))).unwrap();
        let got = self.world.ask(node, OWNER, &id, request).await.unwrap();
        if let Some(place) = self.held(OWNER)
            && self.model.present(place, OWNER) == Verdict::In
        {
            self.model.chains[place.0].is_ended = true;
        }
        let value = got.new_id().expect("a login gives an ID").to_owned();
        let is_fresh = |chain: &Chain| chain.ids[0].value[..21] != value[..21];
        assert!(self.model.chains.iter().all(is_fresh), "a login begins a new chain");
        let now = self.model.now;
        let ids = vec![Id { value: value.clone(), minted: now, presented: None }];
        self.model.chains.push(Chain { user, born: now, seen: now, is_ended: false, ids });
        self.jars[OWNER] = value;
    }

    async fn log_out(&mut self) {
        if self.jars[OWNER].is_empty() {
            return;
        }
        let (node, id) = (self.node(), self.jars[OWNER].clone());
        let got = self.world.ask(node, OWNER, &id, page("/logout")).await.unwrap();
        assert_eq!(got.ours.as_deref(), Some(""), "a logout clears the cookie");
        if let Some(place) = self.held(OWNER)
            && self.model.present(place, OWNER) == Verdict::In
        {
            self.model.chains[place.0].is_ended = true;
        }
        self.jars[OWNER].clear();
    }

    /// Requests of one moment, in whatever order they arrive.
    async fn at_once(&mut self, jar: usize, ids: &[&str]) -> Vec<Got> {
        let mut asked = Vec::new();
        for turn in 0..6 {
            for id in ids {
                asked.push(self.world.ask(turn % 2, jar, id, page("/")));
            }
        }
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
        answers
    }

    async fn burst(&mut self, jar: usize) {
        let Some((chain, id)) = self.held(jar) else { return };
        if self.model.verdict((chain, id), jar) != Verdict::In {
            return;
        }
        let next = self.model.chains[chain].ids.get(id + 1).map(|next| next.value.clone());
        let held = self.jars[jar].clone();
        let ids: Vec<&str> = [Some(held.as_str()), next.as_deref()].into_iter().flatten().collect();

        let answers = self.at_once(jar, &ids).await;

        assert!(answers.iter().all(|got| got.status == 200), "an honest client was logged out");
        let handed: BTreeSet<&str> = answers.iter().filter_map(Got::new_id).collect();
        assert!(handed.len() <= 1, "a chain forked");
        self.model.present((chain, id), jar);
        match next {
            // Whether one with the old ID was answered before the new one arrived is luck.
            Some(next) => {
                assert!(handed.iter().all(|new| **new == next), "a chain forked");
                self.model.present((chain, id + 1), jar);
            }
            None => self.model.handed((chain, id), handed.first().copied()),
        }
        if let Some(new) = handed.first() {
            (*new).clone_into(&mut self.jars[jar]);
        }
    }

    /// The one that has retired ends the chain, whenever it arrives; the other may come before that.
    async fn clash(&mut self, jar: usize) {
        let Some((chain, id)) = self.held(jar) else { return };
        if self.model.verdict((chain, id), jar) != Verdict::In {
            return;
        }
        let retired = (0..id).find(|old| self.model.verdict((chain, *old), jar) == Verdict::Reuse);
        let Some(retired) = retired.map(|old| self.model.chains[chain].ids[old].value.clone()) else { return };
        let held = self.jars[jar].clone();

        let answers = self.at_once(jar, &[&held, &retired]).await;

        assert!(answers.iter().all(|got| [200, 401].contains(&got.status)));
        assert!(answers.iter().filter(|got| got.status == 401).count() >= 6, "a retired ID was let in");
        self.model.chains[chain].is_ended = true;
    }
}

fn check(world: World, runtime: &Runtime, cases: u32) {
    let world = RefCell::new(world);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let run = |steps: Vec<Step>| -> TestCaseResult {
        runtime.block_on(History::run(&mut world.borrow_mut(), &steps));
        Ok(())
    };
    TestRunner::new(config).run(&vec(step(), 1..60), run).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn histories_in_memory_are_as_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::of(None));
    check(world, &runtime, 100);
}

#[test]
fn histories_in_redis_are_as_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::of(Some(Redis::start())));
    check(world, &runtime, 60);
}
