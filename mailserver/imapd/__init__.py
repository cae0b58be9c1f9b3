"""The IMAP server over the store's mailboxes."""
