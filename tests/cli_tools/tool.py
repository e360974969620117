"""Runs the regard command for the tests beside this file; its path is the test's last argument."""
import json
import os
import subprocess
import sys
import unittest

REGARD = sys.argv.pop()
sys.dont_write_bytecode = True


def run(*args, **environment):
    """The finished process of one command; no terminal, no REGARD_* variable but those given."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGARD_")}
    env.update(environment)
    return subprocess.run([REGARD, *args], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=240)


class ToolTest(unittest.TestCase):
    def good(self, *args, **environment):
        done = run(*args, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def good_json(self, *args, **environment):
        return json.loads(self.good(*args, **environment).stdout)

    def refused(self, *args, **environment):
        """The one line on stderr of bad input; nothing on stdout."""
        done = run(*args, **environment)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("regard: "), lines[0])
        return lines[0]


def main():
    unittest.main(verbosity=1)
