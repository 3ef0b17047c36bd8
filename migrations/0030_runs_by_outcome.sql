-- Lists of runs that have ended, newest first, by how. A run that has not ended is not in it, so that a start costs nothing.
create index runs_by_outcome on runs (namespace, outcome, id) where outcome is not null;
