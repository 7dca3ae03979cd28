"""An application on SQLAlchemy, psycopg and pgvector's package: declares its tables, writes, asks for recommendations.

usage: sqlalchemy_client.py postgresql://…   (a database with the extension and the recommender shop of the tests)
Prints "ok" at its end.
"""
import math
import sys
import uuid
from datetime import datetime, timedelta, timezone

from pgvector.sqlalchemy import Vector
from sqlalchemy import ForeignKey, Index, String, cast, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, UUID
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(BIGINT, primary_key=True)
    name: Mapped[str]
    embedding = mapped_column(Vector(3), nullable=True)


class Purchase(Base):
    __tablename__ = "purchase"
    id: Mapped[int] = mapped_column(BIGINT, primary_key=True)
    customer: Mapped[uuid.UUID] = mapped_column(UUID)
    article_id: Mapped[int] = mapped_column(ForeignKey("article.id"))
    at: Mapped[datetime] = mapped_column()
    note: Mapped[str | None] = mapped_column(String(40))
    __table_args__ = (Index("purchase_history", "customer", at.desc()),)


def customer(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def listed(function):
    return function.table_valued("rank", "item_id", "score").alias("n")


def write(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Article(id=n, name=f"article {n}", embedding=[n, 0.5, -n] if n % 4 else None) for n in range(1, 16))
        session.flush()
        session.add_all(
            Purchase(customer=customer(c), article_id=(c * step) % 15 + 1, at=NOON + timedelta(hours=step))
            for c in range(1, 21)
            for step in range(1, 5)
        )
        session.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(
                "SELECT rec_create('sales', interactions => 'purchase', user_column => 'customer', item_column => 'article_id',"
                " time_column => 'at', items => 'article', item_id_column => 'id', title_column => 'name', embedding_column => 'embedding')"
            )
        )
        connection.execute(text("CALL rec_train('graph', recommender => :name, deploy => true)"), {"name": "sales"})


def recommend(engine):
    with Session(engine) as session:
        # A typed parameter, a text, a literal: the same list.
        typed = listed(func.sales.rec_next(customer(3), 5))
        rows = session.execute(select(typed.c.rank, typed.c.item_id, typed.c.score)).all()
        assert [row.rank for row in rows] == [1, 2, 3, 4, 5], rows
        assert all(isinstance(row.item_id, int) and isinstance(row.score, float) for row in rows), rows
        untyped = session.execute(text("SELECT * FROM sales.rec_next(:u, :k)"), {"u": str(customer(3)), "k": "5"}).all()
        literal = session.execute(text(f"SELECT * FROM sales.rec_next('{customer(3)}', 5)")).all()
        assert [tuple(row) for row in rows] == [tuple(row) for row in untyped] == [tuple(row) for row in literal]

        # Joined with the mapped table.
        names = session.execute(select(Article).join(typed, typed.c.item_id == Article.id).order_by(typed.c.rank)).scalars().all()
        assert [article.id for article in names] == [row.item_id for row in rows]

        # Arrays of ids: candidates from a subquery, many users.
        candidates = func.array(select(Article.id).where(Article.id <= 4).scalar_subquery())
        few = listed(func.sales.rec_next(customer(3), 5, candidates))
        assert all(row.item_id <= 4 for row in session.execute(select(few.c.item_id)))
        users = [customer(n) for n in (3, 4, 3)]
        many = func.sales.rec_next_many(cast(users, ARRAY(UUID)), 2).table_valued("user_id", "rank", "item_id", "score").alias("m")
        assert [row.user_id for row in session.execute(select(many.c.user_id))] == [users[0], users[0], users[1], users[1]]

        # Fresh within the transaction, gone with it.
        bought = rows[0].item_id
        session.add(Purchase(customer=customer(3), article_id=bought, at=NOON + timedelta(days=1)))
        session.flush()
        fresh = [row.item_id for row in session.execute(select(typed.c.item_id))]
        assert bought not in fresh, (bought, fresh)
        session.rollback()
        assert [row.item_id for row in session.execute(select(typed.c.item_id))] == [row.item_id for row in rows]

        try:
            session.execute(text("SELECT * FROM sales.rec_next(:u, -1)"), {"u": str(customer(3))})
            raise AssertionError("a negative k is accepted")
        except DBAPIError as error:
            assert error.orig.sqlstate == "22023" and error.orig.diag.message_hint, error


def vectors(engine):
    with Session(engine) as session:
        article = session.get(Article, 6)
        assert article.embedding == [6, 0.5, -6], article.embedding
        assert session.get(Article, 4).embedding is None
        nearest = session.scalars(select(Article).order_by(Article.embedding.l2_distance([9, 0.5, -9])).limit(1)).one()
        assert nearest.id == 9
        # A user's vector arrives through pgvector's own type, and goes back as a parameter.
        user = session.execute(
            text("SELECT rec_encode(:u, model => 'encoder', recommender => 'shop') AS vector").columns(vector=Vector(16)), {"u": 1}
        ).scalar_one()
        assert len(user) == 16 and all(math.isfinite(value) for value in user), user
        zero = select(func.rec_encode(1, None, "encoder", "shop", type_=Vector(16)).l2_distance(user))
        assert abs(session.execute(zero).scalar_one()) < 1e-6


def main():
    engine = create_engine(sys.argv[1].replace("postgresql://", "postgresql+psycopg://", 1))
    write(engine)
    recommend(engine)
    vectors(engine)
    print("ok")


main()
