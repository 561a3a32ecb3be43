"""Tables, plots and the page, from made-up results."""

import json
import unittest
import xml.etree.ElementTree as xml

from compare import charts, envoy, gateway, limitador, litellm, overshoot, page, redis, results, tables


def round_of(per_second, **more):
    row = {"per_second": per_second, "p50_micros": 1_000, "p99_micros": 2_000, "errors": 0, "first_error": None}
    row["cpu_micros_per_operation"] = {"nodes": 10.0, "gateways": 20.0, "provider": 5.0, "bench": None}
    row["resident_bytes"] = {"nodes": 300 << 20, "gateways": 40 << 20}
    return {**row, **more}


def result(name, rows):
    return {
        "comparison": name,
        "machine": {
            "cpu": "a CPU", "cpus": 2, "cpus_used": [0, 1], "memory_bytes": 8 << 30, "kernel": "6.1",
            "file_system": "ext4", "load_average_before": 0.1, "started": "2026-01-01 00:00 UTC",
        },
        "versions": {"quorate": "1"},
        "settings": {"seconds": 3, "rounds": 3, "quick": False},
        "systems": {"A": "one process"},
        "failed": {},
        "took_s": 1,
        "rows": rows,
    }


def row(system, case, *rates, **more):
    return {"system": system, "case": case, "rounds": [round_of(rate, **more) for rate in rates]}


class Figures(unittest.TestCase):
    def test_medians_are_of_the_rounds_and_skip_what_is_missing(self):
        one = row("A", {"clients": 1}, 10, 30, 20)
        self.assertEqual(results.median(one, "per_second"), 20)
        self.assertEqual(results.spread(one, "per_second"), (10, 30))
        self.assertEqual(results.median(one, "cpu_micros_per_operation.nodes"), 10)
        self.assertIsNone(results.median(one, "cpu_micros_per_operation.bench"))
        self.assertIsNone(results.median(one, "no.such.figure"))
        self.assertEqual(results.memory(one), 340 << 20)

    def test_rows_are_found_by_part_of_their_case(self):
        rows = results.Rows(result("x", [row("A", {"answer": "JSON", "clients": 1}, 5), row("A", {"answer": "SSE", "clients": 1}, 7)]))
        self.assertEqual(rows.value("A", "per_second", answer="SSE"), 7)
        self.assertEqual(rows.most("A", "per_second"), 7)
        self.assertIsNone(rows.value("B", "per_second"))
        self.assertIsNone(rows.most("B", "per_second"))

    def test_raw_results_are_json_again(self):
        made = result("x", [row("A", {"clients": 1}, 5, 6), row("B", {"clients": 1}, 7)])
        self.assertEqual(json.loads(results.dump(made)), made)

    def test_figures_are_written_with_their_unit(self):
        self.assertEqual(tables.milliseconds(1_234), "1.23 ms")
        self.assertEqual(tables.milliseconds(12_340), "12.3 ms")
        self.assertEqual(tables.milliseconds(1_234_000), "1,234 ms")
        self.assertEqual(tables.micros(1_500.0), "1,500 µs")
        self.assertEqual(tables.milliseconds(None), "")
        self.assertEqual([tables.clients({"clients": number}) for number in (1, 2048)], ["1 client", "2,048 clients"])

    def test_a_word_that_stands_above_is_not_said_again(self):
        text = tables.table(["a", "b"], [["x", 1], ["x", 2], ["y", 3]])
        self.assertEqual(text.splitlines()[2:], ["| x | 1 |", "|  | 2 |", "| y | 3 |"])


class Plots(unittest.TestCase):
    def check(self, svg):
        root = xml.fromstring(svg)
        width, height = (float(root.get(name)) for name in ("width", "height"))
        for shape in root.iter("{http://www.w3.org/2000/svg}circle"):
            self.assertTrue(0 <= float(shape.get("cx")) <= width and 0 <= float(shape.get("cy")) <= height)
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            self.assertTrue(float(bar.get("x")) + float(bar.get("width")) <= width)
        return root

    def test_lines_stay_inside_and_say_what_they_are(self):
        for logarithmic in (False, True):
            series = {"A & B": [(1, 0.04), (64, 130.0), (256, 99_000.0)], "C": [(1, 3.0), (256, 4.0)]}
            root = self.check(charts.lines("t < u", "ms", series, logarithmic=logarithmic))
            said = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
            self.assertIn("A & B", said)
            self.assertIn("256", said)

    def test_bars_are_as_long_as_their_values(self):
        root = self.check(charts.bars("t", "u", [("A", "x", 50.0), ("B", "", 100.0)]))
        lengths = [float(bar.get("width")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
        self.assertAlmostEqual(lengths[1] / lengths[0], 2, places=1)

    def test_nothing_to_plot_is_no_failure(self):
        self.check(charts.lines("t", "u", {}))
        self.check(charts.bars("t", "u", [("A", "", 0)]))

    def test_ticks_reach_the_highest_value(self):
        for most in (0.3, 1, 7, 99, 101, 15_000, 123_456):
            ticks = charts.steps(most)
            self.assertGreaterEqual(ticks[-1], most)
            self.assertLess(ticks[-1], most * 3)
        self.assertEqual(charts.decades([(1, 0.04), (2, 130)]), [0.01, 0.1, 1, 10, 100, 1000])


class Pages(unittest.TestCase):
    PAGE = "# Top\n<!-- bench: x -->\nold\n<!-- end -->\nbelow\n<!-- bench: y -->\nkept\n<!-- end -->\n"

    def test_only_its_own_place_is_written_anew(self):
        text = page.replace(self.PAGE, "x", r"new \1")
        self.assertEqual(text, self.PAGE.replace("old", r"new \1"))
        self.assertEqual(page.replace(text, "x", "old"), self.PAGE)
        with self.assertRaises(page.NoPlace):
            page.replace(self.PAGE, "z", "new")

    def test_every_comparison_reports_with_all_and_with_some_systems(self):
        clients = [{"clients": number} for number in (1, 64)]
        made = {
            limitador: [row(system, case, 100, 200, 300) for system in (limitador.LIMITADOR, limitador.LEASE) for case in clients],
            redis: [row(redis.REDIS, {"clients": 50, "pipeline": 16}, 500), row(redis.QUORATE, {"clients": 64}, 900)],
            gateway: [
                row(system, {"answer": mode, **case}, 100)
                for mode in gateway.MODES for case in clients for system in (gateway.PROVIDER, gateway.RESERVE)
            ],
            envoy: [
                *(row(system, case, 100) for system in (envoy.CLASSIC, envoy.RESERVING) for case in clients),
                *(
                    {"system": system, "case": overshoot.CASE, "rounds": [{"admitted": 2, "refused": 18, "errors": 0, "tokens": 200}]}
                    for system in (envoy.CLASSIC, envoy.RESERVING)
                ),
            ],
            litellm: [row(system, case, rate) for system, rate in ((litellm.name(1), 20), (litellm.RESERVE, 900)) for case in clients],
        }
        for module, rows in made.items():
            with self.subTest(module.__name__):
                whole = result(module.__name__, rows)
                text = page.block(whole, module.report(whole))
                self.assertIn("Goal", text)
                self.assertIn("3 rounds", text)
                ours = [one for one in rows if one["system"] == rows[-1]["system"]]
                self.assertIn("Not measured", page.block(whole, module.report(result("x", ours))))

    def test_goals_follow_the_figures(self):
        def said(ours, p99):
            rows = [row(limitador.LIMITADOR, {"clients": 64}, 100), row(limitador.LEASE, {"clients": 64}, ours, p99_micros=p99)]
            return limitador.report(result("limitador", rows)).verdicts[0]

        self.assertIn("**Reached**", said(100, 4_000))
        self.assertIn("**Not reached**", said(99, 4_000))
        self.assertIn("**Not reached**", said(100, 4_001))


if __name__ == "__main__":
    unittest.main()
