"""CPython's own tests of logging, with a journal between each logger and each of its handlers."""

import importlib.util

import pytest

# A logger hands its records not to its handlers, but to a DurableHandler around each, and waits until they are delivered.
PROGRAM = """
import itertools, logging, sys, tempfile, unittest, warnings
from lastwords import DurableHandler

warnings.simplefilter("ignore")
folder, number, around = tempfile.mkdtemp(dir=sys.argv[1]), itertools.count(), {}

def through(handler):
    if id(handler) not in around:
        around[id(handler)] = handler, DurableHandler(handler, f"{folder}/{next(number)}.db")
    return around[id(handler)][1]

def call_handlers(logger, record):
    while logger:
        for handler in logger.handlers:
            if record.levelno >= handler.level:
                journaled = through(handler)
                journaled.handle(record)
                assert journaled.drain(60), journaled.stats()
        logger = logger.propagate and logger.parent

logging.Logger.callHandlers = call_handlers
from test import test_logging
plain = test_logging.BaseTest.tearDown

def tear_down(test):
    for _, journaled in around.values():
        journaled.close()
    around.clear()
    plain(test)

test_logging.BaseTest.tearDown = tear_down
suite = unittest.TestSuite()
# Not: what needs the very same object, a socket, a thread that listens; what a strict encoding loses, which arrives here
# with escapes; what counts files that Python left open.
unwanted = ("listen", "queue", "encoding_errors_none", "config8_ok")
for name in sys.argv[2:]:
    for test in unittest.defaultTestLoader.loadTestsFromTestCase(getattr(test_logging, name)):
        if not any(word in test.id() for word in unwanted):
            suite.addTest(test)
done = unittest.TextTestRunner().run(suite)
print(done.testsRun, next(number))
sys.exit(not done.wasSuccessful())
"""

CASES = """
    BasicConfigTest BasicFilterTest BuiltinLevelsTest ChildLoggerTest ConfigDictTest ConfigFileTest
    CustomLevelsAndFiltersTest EncodingTest ExceptionTest FileHandlerTest LogRecordFactoryTest ManagerTest
    RotatingFileHandlerTest StreamHandlerTest
""".split()

# Debian and others have it in a package of its own.
if importlib.util.find_spec("test") and importlib.util.find_spec("test.test_logging"):

    @pytest.mark.slow
    def test_they_pass(children, tmp_path):
        """What handlers and formatters write is what they would have written without."""
        out, _, _ = children.run(PROGRAM, tmp_path, *CASES, timeout=150)
        tests, journals = map(int, out.split())
        assert tests > 80 and journals > 40
