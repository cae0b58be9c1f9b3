"""Dovecot's parameters that this program does not use; those it does are in `retrieval`."""

from __future__ import annotations

from typing import Final

from mailserver.config.declaration import Kind, group

# fmt: off
PARAMETERS: Final = (
    *group(Kind.INERT, "Describes Dovecot's own processes, or is what this program does anyway.", """
        auth_worker_max_count = 30
        base_dir = /run/dovecot
        default_internal_group = dovecot
        default_internal_user = dovecot
        default_login_user = dovenull
        default_vsz_limit = 256M
        dotlock_use_excl = yes
        instance_name = dovecot
        libexec_dir = /usr/lib/dovecot
        lock_method = fcntl
        log_path = syslog
        login_log_format_elements =
        mail_access_groups =
        mail_fsync = optimized
        mail_index_log2_max_age = 2d
        mail_plugin_dir = /usr/lib/dovecot/modules
        mail_plugins =
        mail_privileged_group =
        maildir_copy_with_hardlinks = yes
        maildir_stat_dirs = no
        mbox_dirty_syncs = yes
        mbox_lazy_writes = yes
        mbox_min_index_size = 0
        mbox_read_locks = fcntl
        mbox_very_dirty_syncs = no
        mbox_write_locks = fcntl dotlock
        mmap_disable = no
        shutdown_clients = yes
        ssl_ca =
        ssl_client_ca_dir =
        ssl_client_ca_file =
        ssl_dh =
        state_dir = /var/lib/dovecot
        stats_writer_socket_path =
        verbose_proctitle = no
        dovecot_config_version = 2.4.0
        dovecot_storage_version = 2.4.0
    """, "dovecot"),
    *group(Kind.HARMLESS, "A part of Dovecot that this program does not have, or does its own way.", """
        auth_cache_negative_ttl = 1h
        auth_cache_size = 0
        auth_debug = no
        auth_debug_passwords = no
        auth_default_realm =
        auth_realms =
        auth_username_chars = abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890.-_@
        auth_username_translation =
        auth_verbose = no
        auth_verbose_passwords = no
        auth_winbind_helper_path =
        first_valid_gid = 1
        hostname =
        imap_hibernate_timeout = 0
        info_log_path =
        debug_log_path =
        last_valid_gid = 0
        lda_mailbox_autocreate = no
        lda_mailbox_autosubscribe = no
        log_timestamp =
        login_log_format =
        mail_attribute_dict =
        mail_cache_min_mail_count = 0
        mail_debug = no
        mail_log_prefix =
        mail_max_keyword_length = 50
        mail_server_admin =
        mail_server_comment =
        mail_temp_dir = /tmp
        pop3_delete_type =
        pop3_enable_last = no
        pop3_fast_size_lookups = no
        pop3_lock_session = no
        pop3_save_uidl = no
        postmaster_address =
        rejection_reason =
        rejection_subject =
        ssl_cipher_list =
        ssl_curve_list =
        ssl_options =
        ssl_prefer_server_ciphers = no
        valid_chroot_dirs =
        verbose_ssl = no
    """, "dovecot"),
    *group(Kind.REFUSED, "Decides who may log in, in a way that this program does not know.", """
        auth_master_user_separator =
        auth_ssl_require_client_cert = no
        auth_ssl_username_from_cert = no
        auth_use_winbind = no
        login_access_sockets =
        mail_chroot =
        ssl_verify_client_cert = no
    """, "dovecot"),
)
# fmt: on
