//! What every gateway shows of itself in `/metrics`, looked at again and again, over connections that no process outlives.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::Context;
use super::http::Line;

/// `read` makes of the text, and of the number of the process's life, what is recorded as `f`; or says what is missing.
pub async fn watch<T: Serialize>(
    context: &Context,
    workload: &'static str,
    f: &'static str,
    every: Duration,
    read: impl Fn(&str, u64) -> Result<T, String> + Copy,
) {
    let watch = async |number: usize, address: String| {
        let mut line = Line::new(address);
        while !context.stop.is_cancelled() {
            let pending = context.recorder.invoke(workload, context.recorder.process(), f, &number);
            let seen = line.get("/metrics").await.map_err(|error| error.to_string());
            match seen.and_then(|(body, life)| read(&String::from_utf8_lossy(&body), life)) {
                Ok(seen) => pending.ok(&seen),
                Err(why) => pending.fail(&why),
            }
            tokio::time::sleep(every).await;
        }
    };
    let gateways = context.deployment.gateway_http_addresses().into_iter().enumerate();
    join_all(gateways.map(|(number, address)| watch(number, address))).await;
}
