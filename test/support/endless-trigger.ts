/** A trigger that never ends once a snapshot is removed. */
export const ENDLESS_TRIGGER = `
  create trigger mine before insert on removal
  begin
    update high_water set settlements =
      (with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n);
  end;`;
