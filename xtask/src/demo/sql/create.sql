CREATE EXTENSION pgrec CASCADE;
SELECT rec_create('shop', dimension => :dimension);
ALTER DATABASE demo SET search_path = shop, public;
