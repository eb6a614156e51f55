//! Random edits at the offline Clerk, whose webhooks are lost, doubled, shuffled and delayed on their
//! way through the real door: the mirror is never behind what arrived, and one reconciliation makes
//! it equal to Clerk.
//!
//! `CONVERGENCE_EDITS` says how many edits (10,000 without it), `CONVERGENCE_SEED` of which sequence.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use clerk_authz::{
    clerk::{ApiOptions, BackendApi},
    emulator::{
        Emulator, Instance, WebhookSettings, World,
        directory::{Directory, Organization, User},
    },
    identity::Timestamp,
    mirror::{Entity, Head, Inbox, InboxFilter, InboxState, Mirror, Upkeep},
    server::{self, Running},
    sync::{ReconcileJob, Reconciler},
};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::{
    database::{Database, on_each_engine, organization_id, user_id},
    eventually_within, loopback, settings_for,
    twins::{at_clerk, differences, in_mirror},
    webhook::SECRET,
};

/// How long the last messages may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
/// Messages on their way; at it the editor waits. The offline Clerk's queue holds 10,000.
const MAX_ON_THE_WAY: usize = 2_000;
/// The offline Clerk lists the last 10,000 messages, and an edit makes some dozens at most.
const COLLECT_EVERY: usize = 100;

/// Each time that it is read a millisecond later, so that of two edits one is the later.
fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let last = AtomicI64::new(0);
    Arc::new(move || {
        let now = Timestamp::from(SystemTime::now()).unix_millis();
        last.fetch_max(now - 1, Ordering::Relaxed);
        Timestamp::from_unix_millis(last.fetch_add(1, Ordering::Relaxed) + 1)
    })
}

fn number(variable: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is {text:?}; expected a number")),
        Err(_) => otherwise(),
    }
}

/// Whoever edits, and what there is to edit.
struct Editor<'a> {
    directory: &'a Directory,
    chance: Rng,
    users: Vec<String>,
    organizations: Vec<String>,
    members: Vec<(String, String)>,
    /// Those who were members; people come back.
    former: Vec<(String, String)>,
}

impl Editor<'_> {
    /// One edit; a refused one, such as to make somebody a member who is one, is none.
    fn edit(&mut self, number: usize) {
        let directory = self.directory;
        let user = self.chance.choice(&self.users).cloned();
        let organization = self.chance.choice(&self.organizations).cloned();
        match (self.chance.u8(..100), user, organization) {
            (0..=21, ..) => {
                let user = User {
                    first_name: Some(format!("v{number}")),
                    external_id: Some(format!("ext-{number}")),
                    ..User::with_email(&format!("user{number}@example.com"))
                };
                self.users
                    .push(directory.create_user(user).expect("a new user").id);
            }
            (22..=26, creator, _) => {
                let organization = Organization {
                    slug: format!("acme-{number}"),
                    created_by: creator,
                    ..Organization::named(&format!("Acme {number}"))
                };
                let made = directory
                    .create_organization(organization)
                    .expect("an organization");
                if let Some(creator) = made.created_by {
                    self.members.push((made.id.clone(), creator));
                }
                self.organizations.push(made.id);
            }
            (27, ..) => {
                let all = [
                    "org:invoices:read",
                    "org:invoices:create",
                    "org:reports:read",
                ];
                let some = &all[..self.chance.usize(..=all.len())];
                directory
                    .set_role_permissions("org:member", some)
                    .expect("a role");
            }
            (28..=51, Some(id), _) => {
                let changed = directory.change_user(&id, |user| {
                    user.first_name = Some(format!("v{number}"));
                    user.public_metadata
                        .insert("edit".to_owned(), json!(number));
                    user.locked = number.is_multiple_of(7);
                });
                changed.expect("a user");
            }
            (52..=55, Some(id), _) => drop(directory.ban_user(&id).expect("a user")),
            (56..=58, Some(id), _) => drop(directory.unban_user(&id).expect("a user")),
            (59..=65, Some(id), _) => {
                directory.delete_user(&id).expect("a user");
                self.users.retain(|known| *known != id);
            }
            (66..=67, Some(id), _) => {
                // One who is banned has none.
                if let Ok(session) = directory.create_session(&id, None) {
                    directory.revoke_session(&session.id).expect("a session");
                }
            }
            (68..=72, _, Some(id)) => {
                let changed =
                    directory.change_organization(&id, |it| it.name = format!("Acme v{number}"));
                changed.expect("an organization");
            }
            (73..=74, _, Some(id)) => {
                directory.delete_organization(&id).expect("an organization");
                self.organizations.retain(|known| *known != id);
            }
            (75..=85, Some(user), Some(organization)) => self.join(organization, user),
            (86..=89, ..) => {
                if let Some((organization, user)) = self.chance.choice(&self.former).cloned() {
                    self.join(organization, user);
                }
            }
            (90..=94, ..) => {
                if let Some((organization, user)) = self.chance.choice(&self.members).cloned() {
                    let role = if number.is_multiple_of(2) {
                        "org:admin"
                    } else {
                        "org:member"
                    };
                    // A user or an organization that is gone has no members.
                    let _ = directory.set_role(&organization, &user, role);
                }
            }
            (95.., ..) if !self.members.is_empty() => {
                let pair = self
                    .members
                    .swap_remove(self.chance.usize(..self.members.len()));
                let _ = directory.remove_member(&pair.0, &pair.1);
                self.former.push(pair);
            }
            // There is nobody yet.
            _ => {}
        }
    }

    fn join(&mut self, organization: String, user: String) {
        if self
            .directory
            .add_member(&organization, &user, "org:member")
            .is_ok()
        {
            self.members.push((organization, user));
        }
    }
}

/// The newest that was said of an entity, of all that arrived.
#[derive(Default)]
struct Said {
    version: Option<i64>,
    /// Of that version.
    content: Value,
    deleted_at: Option<i64>,
}

/// What the messages say that were accepted.
async fn said(database: &Database, bodies: &HashMap<String, Arc<str>>) -> BTreeMap<Entity, Said> {
    let mut all: BTreeMap<Entity, Said> = BTreeMap::new();
    let mut filter = InboxFilter {
        state: InboxState::Done,
        after: 0,
        limit: 1_000,
    };
    let mut says = |entity: Entity, content: &Value| {
        let version = content["updated_at"].as_i64();
        let said = all.entry(entity).or_default();
        if version > said.version {
            said.version = version;
            said.content = content.clone();
        }
    };
    let mut deleted = Vec::new();
    loop {
        let page = database
            .store
            .list(&database.instance, filter)
            .await
            .expect("answered");
        for entry in &page {
            let body: Value = serde_json::from_str(&bodies[entry.id.as_str()]).expect("JSON");
            let (data, at) = (&body["data"], body["timestamp"].as_i64());
            let id = data["id"].as_str().unwrap_or_default();
            let member = || {
                let organization = data["organization"]["id"].as_str().expect("an id");
                let user = data["public_user_data"]["user_id"].as_str().expect("an id");
                Entity::Membership(organization_id(organization), user_id(user))
            };
            match body["type"].as_str().expect("a type") {
                "user.created" | "user.updated" => says(Entity::User(user_id(id)), data),
                "organization.created" | "organization.updated" => {
                    says(Entity::Organization(organization_id(id)), data);
                }
                "organizationMembership.created" | "organizationMembership.updated" => {
                    says(member(), data);
                    let organization = &data["organization"];
                    let id = organization["id"].as_str().expect("an id");
                    says(Entity::Organization(organization_id(id)), organization);
                }
                "user.deleted" => deleted.push((Entity::User(user_id(id)), at)),
                "organization.deleted" => {
                    deleted.push((Entity::Organization(organization_id(id)), at))
                }
                "organizationMembership.deleted" => deleted.push((member(), at)),
                _ => {}
            }
        }
        match page.last() {
            Some(last) if page.len() == 1_000 => filter.after = last.sequence,
            Some(_) | None => break,
        }
    }
    for (entity, at) in deleted {
        let said = all.entry(entity).or_default();
        said.deleted_at = said.deleted_at.max(at);
    }
    all
}

/// Nothing in the mirror is older than what arrived about it.
async fn assert_not_behind(database: &Database, all: &BTreeMap<Entity, Said>) {
    let mirror = in_mirror(database).await;
    for (entity, said) in all {
        let head = database.store.head(&database.instance, entity).await;
        let head: Head = head
            .expect("answered")
            .unwrap_or_else(|| panic!("nothing of {entity:?}"));
        let millis = |time: Option<Timestamp>| time.map(Timestamp::unix_millis);
        assert!(millis(head.version) >= said.version, "{entity:?}: {head:?}");
        assert!(
            millis(head.deleted_at) >= said.deleted_at,
            "{entity:?}: {head:?}"
        );
        if said.deleted_at.is_some() {
            assert!(
                !head.is_live(),
                "{entity:?} was deleted, and nobody has asked Clerk: {head:?}"
            );
        }
        if let (Entity::User(id), true) = (entity, head.is_live()) {
            let known = &mirror[id.as_str()];
            for member in [
                "first_name",
                "banned",
                "locked",
                "public_metadata",
                "updated_at",
            ] {
                assert_eq!(known[member], said.content[member], "{member} of {id}");
            }
        }
    }
}

async fn converge(database: Database, engine: &str) {
    let edits = usize::try_from(number("CONVERGENCE_EDITS", || 10_000)).expect("a number of edits");
    let seed = number("CONVERGENCE_SEED", || fastrand::u64(..));
    println!("convergence on {engine}: CONVERGENCE_SEED={seed} CONVERGENCE_EDITS={edits}");
    let clock = clock();
    let clerk = Emulator::start(World::default_world(), loopback(), Arc::clone(&clock))
        .await
        .expect("a Clerk");
    let instance = &clerk.instances()[0];
    let url = database.place.url();
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
            ("CLERK_AUTHZ_DATABASE_URL", &url),
        ],
    );
    let service = server::start(&settings, Arc::clone(&clock))
        .await
        .expect("it starts");
    badly(instance, &service, seed);

    let began = Instant::now();
    let bodies = edit_all(instance, edits, seed).await;
    instance.webhooks_idle().await;
    eventually_within(DRAIN_WITHIN, "the inbox is empty", || async {
        let stats = database
            .store
            .stats(&database.instance)
            .await
            .expect("answered");
        stats.oldest_waiting.is_none()
    })
    .await;
    let drained = began.elapsed();
    let stats = instance.webhook_stats();
    assert_eq!(stats.overflowed + stats.given_up, 0, "{stats:?}");
    let poison = InboxFilter {
        state: InboxState::Poison,
        after: 0,
        limit: 10,
    };
    let poison = database
        .store
        .list(&database.instance, poison)
        .await
        .expect("answered");
    assert!(poison.is_empty(), "{poison:?}");
    assert_not_behind(&database, &said(&database, &bodies).await).await;

    let before = differences(&at_clerk(instance).await, &in_mirror(&database).await).len();
    assert!(
        before > 0,
        "a fifth of the messages was lost, and nothing is missing"
    );
    let options = ApiOptions {
        instance: database.instance.clone(),
        url: instance.issuer().as_str().parse().expect("a URL"),
        secret_key: instance.secret_key().into(),
        budget: 100_000,
        timeout: Duration::from_secs(10),
    };
    let api = BackendApi::new(options, Arc::clone(&clock))
        .expect("an API")
        .in_background();
    let reconciler = Reconciler::new(Arc::new(database.store.clone()), clock);
    let job = |apply| ReconcileJob {
        instance: &database.instance,
        clerk: &api,
        apply,
        holder: "test",
    };
    let report = reconciler.run(&job(true), &|_| {}).await.expect("it ends");
    let left = differences(&at_clerk(instance).await, &in_mirror(&database).await);
    assert!(left.is_empty(), "seed {seed}:\n{}", left.join("\n"));
    let again = reconciler.run(&job(false), &|_| {}).await.expect("it ends");
    assert!(again.is_in_step(), "seed {seed}: {again:?}");
    let found: u64 = report
        .kinds
        .iter()
        .map(clerk_authz::sync::KindReport::found)
        .sum();
    println!(
        "convergence on {engine}: {} messages, {} lost, {} doubled; {} things at Clerk, {before} \
         differences, {found} found and mended; edits and messages took {drained:?}, all of it {:?}",
        stats.messages,
        stats.lost,
        stats.doubled,
        at_clerk(instance).await.len(),
        began.elapsed(),
    );
    service.stop().await;
    clerk.stop().await;
}

/// A fifth is lost, a fifth comes twice, all come late and in no order.
fn badly(instance: &Instance, service: &Running, seed: u64) {
    let settings = WebhookSettings {
        secret: SECRET.to_owned(),
        lose: 0.2,
        double: 0.2,
        delay_milliseconds: [0, 300],
        shuffle: true,
        retry_milliseconds: vec![100; 20],
        concurrent: 32,
        seed,
        ..WebhookSettings::to(format!("http://{}/webhooks/clerk", service.http_addr()))
    };
    instance.set_webhooks(settings).expect("good settings");
}

/// Edits; the bodies of all messages by id.
async fn edit_all(instance: &Instance, edits: usize, seed: u64) -> HashMap<String, Arc<str>> {
    let mut bodies = HashMap::new();
    let mut editor = Editor {
        directory: instance.directory(),
        chance: Rng::with_seed(seed),
        users: Vec::new(),
        organizations: Vec::new(),
        members: Vec::new(),
        former: Vec::new(),
    };
    for number in 0..edits {
        editor.edit(number);
        if number % COLLECT_EVERY == COLLECT_EVERY - 1 || number == edits - 1 {
            let messages = instance.webhook_messages().into_iter();
            bodies.extend(messages.map(|message| (message.id.to_string(), message.body)));
            while instance.webhook_stats().waiting > MAX_ON_THE_WAY {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    bodies
}

on_each_engine! {
    async fn the_mirror_is_never_behind_and_one_reconciliation_makes_it_equal(database: Database) {
        let engine = if database.place.url().starts_with("sqlite") { "SQLite" } else { "PostgreSQL" };
        converge(database, engine).await;
    }
}
