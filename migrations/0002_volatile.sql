-- Workspaces that are fast and need not survive a crash of the machine: overlayfs does not sync what is written to
-- them. Of such a one the boot is kept in which it was last mounted, or else made; after another boot it may have
-- lost anything that was written to it.

alter table snapshot add column volatile_boot text check (volatile_boot is null or kind = 'active');

-- Whether a snapshot is volatile is said when it is made. It goes from one boot to the next, and ends with the commit.
create trigger snapshot_volatile before update of volatile_boot on snapshot
  when new.volatile_boot is not old.volatile_boot
begin
  select raise(abort, 'a snapshot is volatile from when it is made until it is committed')
   where old.volatile_boot is null
      or (new.volatile_boot is null) <> (new.kind = 'committed');
end;
