"""Many entries in one mail: what is shown (content, text, html), and the conversation with the mail server.

Used by targets/urls for smtp:// and by users as SMTPDigest. No content of a record may ever stop a line.
"""
