-- One index for both times of a run: it is written once for each version of a row, and serves either time alone.
create index runs_by_time on runs using brin (started_at, ended_at) with (pages_per_range = 16, autosummarize = on);
drop index runs_by_start;
drop index runs_by_end;
