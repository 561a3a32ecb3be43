"""Processes, rounds and options, with programs that every system has."""

import contextlib
import io
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from compare import envoy, load, machine, processes, quorate, rounds, settings
from compare.processes import NotReady, Processes


class Ends(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp()) / "work"

    def test_everything_ends_when_left_and_the_folder_is_gone(self):
        with Processes(self.folder) as running:
            one = running.start("sleeper", ["sleep", "600"])
            reader = running.start("reader", ["cat"], stops_at_eof=True)
            self.assertIsNone(one.popen.poll())
        self.assertIsNotNone(one.popen.poll())
        self.assertEqual(reader.popen.poll(), 0)
        self.assertFalse(self.folder.exists())

    def test_an_early_end_is_told_with_what_was_said(self):
        with Processes(self.folder) as running, self.assertRaises(NotReady) as raised:
            process = running.start("speaker", ["sh", "-c", "echo no such luck; exit 3"])
            running.wait_until(process, lambda: False)
        self.assertIn("no such luck", str(raised.exception))
        self.assertIn("(3)", str(raised.exception))

    def test_children_count_as_their_parents(self):
        with Processes(self.folder) as running:
            process = running.start("parent", ["sh", "-c", "sleep 600 & wait"])
            running.wait_until(process, lambda: len(process.pids()) == 2)
            self.assertGreater(processes.resident_bytes(process.pids()), 1 << 16)

    def test_ports_differ(self):
        self.assertEqual(len(set(processes.free_ports(20))), 20)

    def test_what_proc_says_is_read(self):
        self.assertEqual(processes.parent_in("42 (a) b (c) S 7 2 3"), 7)
        self.assertEqual(processes.resident_in("Name: x\nVmRSS:\t 2048 kB\n"), 2 << 20)
        self.assertEqual(processes.resident_in(""), 0)
        self.assertEqual(machine.cpu_model("vendor: x\nmodel name\t: AMD EPYC\n"), "AMD EPYC")


class Rounds(unittest.TestCase):
    def system(self, name, order, fails=False):
        @contextlib.contextmanager
        def start():
            order.append(name)
            if fails:
                raise NotReady("it is not there")
            yield lambda case: {"per_second": case["clients"], "p50_micros": 1, "p99_micros": 1, "errors": 0}

        return rounds.System(name, start, [{"clients": 1}, {"clients": 2}])

    def test_systems_take_turns_from_both_ends(self):
        order = []
        rows, failed = rounds.alternate([self.system(name, order) for name in "AB"], 3, lambda _: None)
        self.assertEqual("".join(order), "ABBAAB")
        self.assertEqual([len(row["rounds"]) for row in rows], [3, 3, 3, 3])
        self.assertEqual(failed, {})

    def test_who_fails_is_left_out_and_the_others_go_on(self):
        order = []
        systems = [self.system("A", order), self.system("B", order, fails=True)]
        rows, failed = rounds.alternate(systems, 2, lambda _: None)
        self.assertEqual({row["system"] for row in rows}, {"A"})
        self.assertEqual(failed, {"B": "it is not there"})
        self.assertEqual("".join(order), "ABA")


class Recipes(unittest.TestCase):
    def test_the_files_of_deploy_envoy_take_our_ports_and_limits(self):
        ports = {envoy.ADMIN: 50001, envoy.LISTENER: 50002, envoy.PROVIDER: 50003, envoy.SERVICE: 50004}
        for recipe in ("counting.yaml", "reserving.yaml"):
            text = envoy.with_ports(recipe, ports)
            self.assertEqual(sorted(set(re.findall(r"port_value: (\d+)", text))), ["50001", "50002", "50003", "50004"])
        self.assertNotIn("requests_per_unit: 250\n", envoy.with_limit(77))

    def test_a_recipe_that_changed_is_told(self):
        with self.assertRaises(settings.Missing):
            envoy.with_ports("counting.yaml", {1: 2})


class Options(unittest.TestCase):
    def parse(self, *words):
        with mock.patch.dict(os.environ, {"LIMITADOR": ""}):
            return settings.parse(["--quorate", sys.executable, *words], "")

    def test_nothing_named_is_everything(self):
        chosen, names = self.parse()
        self.assertEqual(names, list(settings.COMPARISONS))
        self.assertEqual((chosen.rounds, chosen.seconds, chosen.built), (3, 3, False))
        chosen, names = self.parse("redis", "--quick")
        self.assertEqual((names, chosen.rounds, chosen.either("a", "b")), (["redis"], 1, "b"))

    def test_an_unknown_comparison_is_refused(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
            self.parse("redys")
        self.assertIn("limitador", said.getvalue())

    def test_a_report_of_quorate_bench_is_its_row(self):
        self.assertEqual(load.row_of('{"machine": {}, "rows": [{"per_second": 7}]}'), {"per_second": 7})
        with self.assertRaises(ValueError):
            load.row_of('{"rows": []}')

    def test_a_budget_names_its_enforcement(self):
        text = quorate.budget("Lease", 250)
        self.assertIn("enforcement: Lease", text)
        self.assertIn("limit: {tokens: 250}", text)
        self.assertNotIn("subject", quorate.budget(by_user=False))


if __name__ == "__main__":
    unittest.main()
