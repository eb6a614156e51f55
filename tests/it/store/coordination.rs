//! What replicas agree on.

use clerk_authz::mirror::{Coordination, Lease};

use crate::support::database::{Database, NOW, ms, on_each_engine};

on_each_engine! {
    async fn a_lease_is_one_holders_until_it_ends(database: Database) {
        let other = database.replica().await;
        let take = async |holder: &str, until: i64, now: i64| {
            let store = if holder == "b" { &other } else { &database.store };
            store.lease(&database.instance, "reconcile", holder, ms(until), ms(now)).await.expect("answered")
        };
        assert_eq!(take("a", 100, 0).await, Some(Lease { term: 1, until: ms(100) }));
        assert_eq!(take("b", 150, 99).await, None);
        assert_eq!(take("a", 200, 99).await, Some(Lease { term: 1, until: ms(200) }), "renewed");
        assert_eq!(take("b", 300, 199).await, None);
        assert_eq!(take("b", 300, 200).await, Some(Lease { term: 2, until: ms(300) }), "it has ended");
        assert_eq!(take("a", 400, 250).await, None, "and the first one learns of it");

        other.release(&database.instance, "reconcile", "a").await.expect("answered");
        assert_eq!(take("a", 400, 250).await, None, "nobody gives back what is another's");
        other.release(&database.instance, "reconcile", "b").await.expect("answered");
        assert_eq!(take("a", 400, 250).await, Some(Lease { term: 3, until: ms(400) }));
    }

    async fn of_many_who_want_a_lease_one_gets_it(database: Database) {
        let mut tasks = tokio::task::JoinSet::new();
        for holder in 0..12 {
            let (store, instance) = (database.store.clone(), database.instance.clone());
            tasks.spawn(async move {
                store.lease(&instance, "reconcile", &holder.to_string(), ms(100), ms(0)).await.expect("answered")
            });
        }
        let mut got = 0;
        while let Some(lease) = tasks.join_next().await {
            got += usize::from(lease.expect("it ran").is_some());
        }
        assert_eq!(got, 1);
    }

    async fn work_goes_on_where_it_was(database: Database) {
        let checkpoint = async || database.store.checkpoint(&database.instance, "reconcile").await.expect("answered");
        assert_eq!(checkpoint().await, None);
        for page in ["1", "2"] {
            let kept = database.store.set_checkpoint(&database.instance, "reconcile", page, ms(NOW)).await;
            kept.expect("kept");
        }
        let kept = checkpoint().await.expect("kept");
        assert_eq!((&*kept.value, kept.updated_at), ("2", ms(NOW)));
        let other = database.replica().await;
        assert_eq!(other.checkpoint(&database.instance, "reconcile").await.expect("answered"), Some(kept));
    }

    async fn what_may_be_used_once_is_used_once_across_replicas(database: Database) {
        let other = database.replica().await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20 {
            let store = if number % 2 == 0 { other.clone() } else { database.store.clone() };
            let instance = database.instance.clone();
            tasks.spawn(async move { store.use_once(&instance, "jti_1", ms(NOW)).await.expect("answered") });
        }
        let mut first = 0;
        while let Some(was_first) = tasks.join_next().await {
            first += usize::from(was_first.expect("it ran"));
        }
        assert_eq!(first, 1);
        assert_eq!(database.store.use_once(&database.instance, "jti_2", ms(NOW)).await, Ok(true));
        let elsewhere = "other".parse().expect("a name");
        assert_eq!(database.store.use_once(&elsewhere, "jti_1", ms(NOW)).await, Ok(true));
    }
}
