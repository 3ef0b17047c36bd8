-- Sessions of the web console: secrets that end by themselves, made with that of a credential.
create table console_sessions (
    secret_sha256 bytea primary key,
    namespace text not null,
    name text not null,
    made_with bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz not null
);
comment on column console_sessions.made_with is
    'SHA-256 of the secret of the credential with which it was made: it is good for no longer than that.';
create index console_sessions_of on console_sessions (namespace, name, created_at);
create index console_sessions_end on console_sessions (expires_at);
