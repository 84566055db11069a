//! Sends the elections' requests to etcd and handles the answers.

use super::{Answer, Worker};
use crate::cluster::election::{Election, Failure, Request};
use crate::cluster::store;
use crate::etcd::EtcdError;
use crate::os::clock;
use std::sync::Arc;

impl Worker {
    pub(super) fn ask(&self, index: usize, id: u64, mut request: Request) {
        let one = &self.all[index];
        let hold = one.election.hold().map(|(epoch, until, _)| (epoch, until));
        let against = if !self.is_named() && !matches!(request, Request::Read) {
            Some("this node's name is not registered in etcd")
        } else if matches!(request, Request::Commit(_)) && self.p.kept.exceeds(&one.name, hold, clock::now()) {
            // The transaction would give other nodes a right while this host still answers.
            Some("the kernel did not accept a shorter hold")
        } else {
            None
        };
        if let Some(message) = against {
            let message = message.to_owned();
            let answer = Answer { index, id, result: Err((Failure::Definite, EtcdError::Refused { message })) };
            // The queue has room for more than all open requests. If it were full, the election would only ask again
            // after a restart.
            let _ = self.answers.0.try_send(answer);
            return;
        }
        if let Request::Commit(c) = &mut request {
            let record = Arc::make_mut(&mut c.record);
            if record.since_ms == 0 {
                record.since_ms = clock::unix_ms();
            }
            for m in &record.members {
                let own = (*m == self.me).then_some(self.p.socket);
                if let Some(a) = self.peers.get(m).copied().or(own) {
                    record.addresses.insert(m.clone(), a);
                }
            }
        }
        let (etcd, keys, me) = (self.shared.etcd.clone(), self.p.keys.clone(), self.me.clone());
        let (instance, tx) = (self.all[index].name.clone(), self.answers.0.clone());
        self.p.outside.spawn(async move {
            let result = store::ask(&etcd, &keys, &instance, &me, request).await;
            let _ = tx.send(Answer { index, id, result }).await;
        });
    }

    /// etcd was restored or exchanged: discard everything read from it.
    pub(super) fn etcd_changed(&mut self) {
        self.changes.borrow_and_update();
        self.each(Election::etcd_changed);
    }

    pub(super) fn answer(&mut self, a: Answer) {
        // Handle the change of etcd before any answer from the new one.
        if self.changes.has_changed().unwrap_or(false) {
            self.etcd_changed();
        }
        match a.result {
            Ok((succeeded, view)) => {
                self.check_alive(a.index, view.alive);
                self.with(a.index, |e, now| e.handle_reply(a.id, succeeded, view, now));
            }
            Err((failure, error)) => {
                tracing::debug!(
                    instance = %self.all[a.index].name, %error,
                    "etcd did not answer a request of the election"
                );
                self.with(a.index, |e, now| e.handle_failure(a.id, failure, now));
            }
        }
    }
}
