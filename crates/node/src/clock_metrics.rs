//! What a node measures of its clock and its peers'.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_replica::ClockReport;

/// `median`, or the number of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    from: String,
}

#[derive(Debug, Default)]
pub(crate) struct ClockMetrics {
    offset_ms: Family<From, Gauge>,
    off: Gauge,
    held_ms: Gauge,
}

impl ClockMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "clock_offset_ms",
            "How far this node's clock is ahead of the members' median and of each peer's; absent: not known",
            self.offset_ms.clone(),
        );
        registry.register(
            "clock_off",
            "1 while this node does not lead because its clock is off",
            self.off.clone(),
        );
        registry.register(
            "clock_held_ms",
            "How far the clock has jumped without being confirmed: batches are stamped without that",
            self.held_ms.clone(),
        );
    }

    pub fn refresh(&self, report: &ClockReport) {
        // What is not known any more is not shown any more.
        self.offset_ms.clear();
        let peers = report.peers.iter().map(|peer| (peer.id.to_string(), peer.ahead_ms));
        let known = std::iter::once(("median".to_owned(), report.offset_ms)).chain(peers);
        for (from, offset_ms) in known.filter_map(|(from, offset_ms)| Some((from, offset_ms?))) {
            self.offset_ms.get_or_create(&From { from }).set(offset_ms);
        }
        self.off.set(i64::from(report.off));
        self.held_ms.set(report.held_ms);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use quorate_replica::PeerOffset;

    use super::*;

    #[test]
    fn what_is_not_known_is_absent() {
        let (metrics, mut registry) = (ClockMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let peer = |id, ahead_ms| PeerOffset { id, ahead_ms };
        let known = ClockReport {
            offset_ms: Some(5_000),
            off: true,
            held_ms: 0,
            peers: vec![peer(2, Some(5_001)), peer(3, Some(4_999))],
        };
        metrics.refresh(&known);
        let unknown = ClockReport {
            offset_ms: None,
            off: true,
            held_ms: -7,
            peers: vec![peer(2, Some(-12)), peer(3, None)],
        };
        let page = |report| {
            metrics.refresh(report);
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = page(&known);
        assert!(before.contains(&"clock_offset_ms{from=\"median\"} 5000".to_owned()), "{before:?}");
        assert!(before.contains(&"clock_offset_ms{from=\"3\"} 4999".to_owned()), "{before:?}");
        let after = page(&unknown);
        assert_eq!(after, ["clock_offset_ms{from=\"2\"} -12", "clock_off 1", "clock_held_ms -7"]);
    }
}
