"""Makes `twistd mailserver` known to Twisted."""

from twisted.application.service import ServiceMaker

mailserver = ServiceMaker(
    "The mail server",
    "mailserver.tap",
    "SMTP, POP3 and IMAP for the classic Unix mail host.",
    "mailserver",
)
