//! Requests one after the other, to see what a change loses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Client, Request, eventually, wait};

/// A number of clients that ask one thing again and again, each on a connection that it keeps while it may.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Outcome>>,
}

/// What the clients of a [`Load`] got.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How often who answered: a Service, or a status code.
    pub answers: BTreeMap<String, usize>,
    /// How often which pod answered.
    pub pods: BTreeMap<String, usize>,
    /// What went wrong on the way.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts `clients` clients.
    pub fn start(client: &Client, request: &Request, clients: usize) -> Self {
        Self::paced(client, request, clients, Duration::ZERO)
    }

    /// The same, each with a pause after every answer: where others need the processors, too.
    pub fn paced(client: &Client, request: &Request, clients: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let counters = (Arc::clone(&asked), Arc::clone(&failed));
                tokio::spawn(ask(client.clone(), request.clone(), pause, Arc::clone(&stop), counters))
            })
            .collect();
        Self { stop, asked, failed, clients }
    }

    /// Waits for so many more answers (or failures).
    pub async fn goes_on(&self, more: usize) {
        let goal = self.asked.load(Ordering::Relaxed) + more;
        eventually("the load goes on", async || {
            let asked = self.asked.load(Ordering::Relaxed);
            wait::check(asked >= goal, || format!("{asked} of {goal}"))
        })
        .await;
    }

    /// How many requests got no answer from a pod so far.
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Lets every client finish its request and sums up.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for client in self.clients {
            let outcome = client.await.expect("a client");
            for (who, count) in outcome.answers {
                *sum.answers.entry(who).or_default() += count;
            }
            for (pod, count) in outcome.pods {
                *sum.pods.entry(pod).or_default() += count;
            }
            sum.failures.extend(outcome.failures);
        }
        sum
    }
}

async fn ask(
    client: Client,
    request: Request,
    pause: Duration,
    stop: Arc<AtomicBool>,
    (asked, failed): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match client.connect().await {
                Ok(open) => open,
                Err(why) => {
                    outcome.failures.push(why);
                    failed.fetch_add(1, Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                    // A refused connection fails at once: do not spin.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        match open.send(&request).await {
            Ok(answer) => {
                *outcome.answers.entry(answer.who()).or_default() += 1;
                match answer.echo() {
                    Ok(echo) => *outcome.pods.entry(echo.pod.to_string()).or_default() += 1,
                    Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                }
                let close = answer.headers.get("connection").is_some_and(|value| value == "close");
                connection = (!close).then_some(open);
            }
            Err(why) => {
                failed.fetch_add(1, Ordering::Relaxed);
                outcome.failures.push(why);
            }
        }
        asked.fetch_add(1, Ordering::Relaxed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    outcome
}
